"""The work behind FastAPI, one uvicorn process with uvloop and httptools.

    uvicorn benchmarks.serving.peers.fastapi_app:app --loop uvloop --http httptools --no-access-log

As its documentation asks, the endpoint is a coroutine and what blocks goes to threads: the read to the one that the
store's connection belongs to, the model to the pool. FastAPI has no batching, so each request is a call of the model;
calls run side by side, with one thread of torch each, as PyTorch's advice on inference on CPUs is for them.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.recommender import Page, Recommender
from features.settings import load_settings


class Query(BaseModel):
    """A request."""

    user_id: str


app = FastAPI()
_recommender = Recommender(load_settings())
_reads = ThreadPoolExecutor(1, thread_name_prefix="feast-reads")
_calls = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="model")


@app.post("/recommend")
async def recommend(query: Query) -> Page:
    """Items for a user."""
    loop = asyncio.get_running_loop()
    shoppers = await loop.run_in_executor(_reads, _recommender.read, [query.user_id])
    (page,) = await loop.run_in_executor(_calls, _recommender.infer, shoppers)
    return page
