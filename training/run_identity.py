"""What a training run is made of: a checkpoint goes on only where that is what it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from features.inputs.content import ContentVocabulary
from training.config import Config
from training.evaluate import Stage
from training.fusion import FusionModel


def run_identity(model: FusionModel, stage: Stage, vocabulary: ContentVocabulary, config: Config) -> dict[str, str]:
    """Part of the run to the sha256 of it.

    `fit.max_minutes` counts as no part of the configuration: it says when to stop, not what is learned.

    Args:
        model: its items' content is that of the stage's catalogue.
        stage: the tuning stage; its moments stand for the split and for the events that were built.
    """
    log, tested = stage.log, stage.test.moments
    codes = log.vocabularies
    timeless = replace(config, fit=replace(config.fit, max_minutes=0.0))
    moments = (part for it in (stage.moments, tested) for part in (it.times_ms, it.targets, it.offsets))
    return {
        "items": _sha256(
            json.dumps(log.catalogue["item_id"].to_list()).encode(), model.tower.content.cpu().numpy().tobytes()
        ),
        "vocabularies": _sha256(
            json.dumps(
                [list(vocabulary.codes.items()), list(vocabulary.price_edges)]
                + [list(part.items()) for part in (codes.gender, codes.country, codes.device)]
            ).encode()
        ),
        "moments to learn from": _sha256(*(part.tobytes() for part in moments)),
        "configuration": _sha256(json.dumps(timeless.to_dict(), sort_keys=True).encode()),
    }


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
