"""Publishing on a real database and a real Feast store; a candidate that fails leaves nothing behind."""

from __future__ import annotations

import copy
import json
import resource
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from features import schema
from features.database.engine import open_database
from features.online.interest_encoder import InterestEncoder
from features.online.materialize import materialize
from features.releases.release import ReleaseError, read_release
from features.releases.release_table import ReleaseTable
from features.schema import feature_service, interest_view
from features.settings import ROOT, Settings
from features.store import count_interests, delete_shoppers, open_store, opened
from tests.training.publishing import LOGGED, published, with_model
from training.batches import BatchMaker
from training.dataset import read_log
from training.encode import Encoder
from training.evaluate import Protocol, rank, stage_by_time
from training.gate import GateError, check_candidate
from training.publish import publish, write_candidate
from training.scoring import ModelScorer
from training.served_release import ServedRelease
from training.trained import TrainedModel, load_trained


def traces(settings: Settings) -> list[Path]:
    """What a release would leave behind."""
    versions = [path for path in settings.model_repository.glob("*/*") if path.is_dir()]
    work = [*(settings.home / "candidates").glob("*"), *(settings.home / "materialize").glob("*")]
    return [*versions, *settings.generated.glob("*"), *work]


def test_a_release_is_live_with_its_files_its_view_and_its_vectors(shop: Settings, trained: TrainedModel) -> None:
    number = published(shop, trained)
    release = read_release(shop.model_repository / "fusion" / str(number))
    assert ReleaseTable(open_database(shop.log_url)).live() == number == 1
    assert release.items["item_id"].to_list() == trained.items["item_id"].to_list()
    assert (shop.model_repository / "item_tower" / "1" / "model.pt").exists()
    assert json.loads((shop.generated / "v1.json").read_text())["interest_dim"] == trained.config.model.dim
    store = open_store(shop)
    rows = store.get_online_features(
        store.get_feature_service(feature_service(1)),
        [{"shopper": f"u:{at}"} for at in range(LOGGED)],
        full_feature_names=True,
    ).to_dict()
    assert all(len(vector) == trained.config.model.dim for vector in rows["user_interest_v1__vector"])
    assert not list((shop.home / "candidates").glob("*"))


def test_a_second_release_retires_the_first_and_keeps_its_view(shop: Settings, trained: TrainedModel) -> None:
    assert (published(shop, trained), published(shop, trained)) == (1, 2)
    table = ReleaseTable(open_database(shop.log_url))
    assert [row.state for row in table.all()] == ["retired", "live"]
    assert {service.name for service in open_store(shop).list_feature_services()} >= {"fusion_v1", "fusion_v2"}


def test_a_candidate_that_fails_the_gate_leaves_only_a_record_of_it(shop: Settings, trained: TrainedModel) -> None:
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        model.fusion.short_out.weight[0, 0] = float("nan")
    with pytest.raises(GateError, match="not all finite; train again .* --configuration FILE"):
        published(shop, with_model(trained, model))
    assert traces(shop) == []
    table = ReleaseTable(open_database(shop.log_url))
    assert (table.of(1).state, table.live()) == ("failed", None)
    assert "not all finite" in table.changes(1)[-1].why


def test_vectors_that_active_shoppers_lack_are_a_reason_to_refuse(
    shop: Settings, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def materialize_less(settings: Settings, release: int, folder: Path) -> None:
        materialize(settings, release, folder)
        with opened(settings) as store:
            delete_shoppers(store, ["u:0", "u:1"])

    monkeypatch.setattr("training.publish.materialize", materialize_less)
    with pytest.raises(GateError, match=f"{LOGGED - 2} of {LOGGED} shoppers who were active"):
        published(shop, trained)
    assert traces(shop) == []
    assert interest_view(1) not in {view.name for view in open_store(shop).list_feature_views()}


def test_of_two_publishers_one_wins_and_the_other_is_told(shop: Settings, trained: TrainedModel) -> None:
    told: list[str] = []

    def meanwhile(_: str) -> None:
        with pytest.raises(ReleaseError) as refused:
            published(shop, trained)
        told.append(str(refused.value))

    assert publish(shop, trained, why="test", note=meanwhile) == 1
    assert set(told) == {
        "another publisher is at work in this shop; publish when it has ended, if it is still wanted then"
    }
    assert [row.state for row in ReleaseTable(open_database(shop.log_url)).all()] == ["live"]


def test_a_disk_that_is_full_while_exporting_leaves_nothing(shop: Settings, trained: TrainedModel) -> None:
    """A limit on the size of files stands in for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*candidates/1/fusion/model.pt"):
            published(shop, trained)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert traces(shop) == []
    assert ReleaseTable(open_database(shop.log_url)).all() == []


def test_a_failure_while_materialising_leaves_nothing(
    shop: Settings, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.publish.ENCODER_FILE", "nowhere.pt")
    with pytest.raises(ReleaseError, match="encoder.pt is missing"):
        published(shop, trained)
    assert traces(shop) == []


def test_a_publish_that_was_stopped_makes_every_vector_again(
    shop: Settings, trained: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = InterestEncoder.encode
    chunks: list[Path] = []

    def stopped_in_the_second(encoder: InterestEncoder, histories: Path, vectors: Path) -> None:
        chunks.append(histories)
        if len(chunks) == 2:
            raise KeyboardInterrupt
        encode(encoder, histories, vectors)

    monkeypatch.setattr("features.online.materialize.CHUNK_SHOPPERS", 2)
    monkeypatch.setattr(InterestEncoder, "encode", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        published(shop, trained)
    assert traces(shop) == []
    number = published(shop, trained)
    with opened(shop) as store:
        assert count_interests(store, number, [f"u:{at}" for at in range(LOGGED)]) == LOGGED


def test_the_gate_refuses_a_module_of_other_weights(trained: TrainedModel, tmp_path: Path) -> None:
    write_candidate(trained, 1, tmp_path)
    assert check_candidate(trained, tmp_path / "fusion", tmp_path / "item_tower") < 1e-4
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        model.tower.ids.weight += 0.01
    with pytest.raises(GateError, match="differs from the eager module"):
        check_candidate(with_model(trained, model), tmp_path / "fusion", tmp_path / "item_tower")


@pytest.mark.parametrize(
    "name", ["model.pt", "items.parquet", "items.npy", "vocabulary.json", "encoder.pt", "weights.pt"]
)
def test_a_changed_or_missing_file_is_named(trained: TrainedModel, tmp_path: Path, name: str) -> None:
    write_candidate(trained, 1, tmp_path)
    path = tmp_path / "fusion" / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ReleaseError, match=f"{name} is not the file that was published"):
        read_release(tmp_path / "fusion")
    path.unlink()
    with pytest.raises(ReleaseError, match=f"{name} is missing"):
        read_release(tmp_path / "fusion")


def test_a_release_of_another_schema_is_refused(trained: TrainedModel, tmp_path: Path) -> None:
    write_candidate(trained, 1, tmp_path)
    manifest = tmp_path / "fusion" / "release.json"
    manifest.write_text(manifest.read_text().replace(schema.schema_hash(), "0" * 64))
    with pytest.raises(ReleaseError, match="made under schema 000000000000"):
        read_release(tmp_path / "fusion")


def test_a_manifest_of_a_newer_version_is_refused_by_what_it_says_more(trained: TrainedModel, tmp_path: Path) -> None:
    write_candidate(trained, 1, tmp_path)
    path = tmp_path / "fusion" / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantisation": "int8", "arms": []}))
    with pytest.raises(ReleaseError, match="made by a newer version, which also says arms, quantisation; update"):
        read_release(tmp_path / "fusion")


def test_a_release_ranks_from_its_files_as_the_model_does(trained: TrainedModel, offline: Path, tmp_path: Path) -> None:
    write_candidate(trained, 1, tmp_path)
    log, moments = read_log(offline, trained.codes, trained.items)
    stage = stage_by_time(log, moments, int(np.quantile(moments.times_ms, 0.9)), 1 << 60, Protocol())
    served = ServedRelease(tmp_path / "fusion").rank(log, stage.test.moments, trained.items["item_id"])
    assert len(served) > 20
    assert np.array_equal(served, rank(ModelScorer(trained.model, log), stage))


def test_a_saved_model_is_loaded_as_it_was(trained: TrainedModel, tmp_path: Path) -> None:
    trained.save(tmp_path)
    loaded = load_trained(tmp_path)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])
    assert loaded.items.equals(trained.items)
    assert (loaded.codes, loaded.config) == (trained.codes, trained.config)


def test_vectors_of_the_job_are_those_that_training_saw(trained: TrainedModel, offline: Path, tmp_path: Path) -> None:
    write_candidate(trained, 1, tmp_path)
    log, moments = read_log(offline)
    last = moments.take(np.unique(moments.shoppers, return_index=True)[1])
    maker = BatchMaker(log)
    (batch,) = maker.batches(maker.ask(last), batch_examples=1000)
    ends = log.rows_before(last.shoppers, last.times_ms // 86_400_000 * 86_400_000)
    ids = log.catalogue["item_id"].to_list()
    histories = [
        {
            "shopper": f"u:{row}",
            "item_ids": [ids[item] for item in log.items[log.starts[shopper] : end]],
            "event_types": log.types[log.starts[shopper] : end].tolist(),
            "event_times_ms": log.times_ms[log.starts[shopper] : end].tolist(),
        }
        for row, (shopper, end) in enumerate(zip(last.shoppers, ends, strict=True))
    ]
    pl.DataFrame(histories).write_parquet(tmp_path / "in.parquet")
    Encoder(tmp_path / "fusion").encode(tmp_path / "in.parquet", tmp_path / "out.parquet", chunk_rows=7)
    found = dict(pl.read_parquet(tmp_path / "out.parquet").iter_rows())
    with torch.inference_mode():
        vectors, _ = trained.model.tower()
        table = torch.cat([vectors, torch.zeros(1, vectors.shape[1])])
        states = trained.model.long(table[batch.history.items], batch.history.types, batch.history.gaps)
    seen = [at for at in range(len(batch.rows)) if batch.long_mask[at] > 0]
    assert len(found) == len(seen) > 10
    for at in seen:
        expected = states[batch.history.row[at], batch.history.last[at]].numpy()
        assert found[f"u:{batch.rows[at]}"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        (schema.FUSION_MODEL, schema.FUSION_INPUTS, schema.FUSION_OUTPUTS),
        (schema.ITEM_TOWER_MODEL, schema.ITEM_TOWER_INPUTS, schema.ITEM_TOWER_OUTPUTS),
    ],
)
def test_the_committed_triton_configs_are_the_contract(
    model: str, inputs: tuple[schema.Tensor, ...], outputs: tuple[schema.Tensor, ...]
) -> None:
    text = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    kinds = model_config_pb2.DataType
    assert (config.name, config.platform, config.backend) == (model, "pytorch_libtorch", "pytorch")
    assert [(entry.name, kinds.Name(entry.data_type), tuple(entry.dims)) for entry in config.input] == [
        (tensor.name, f"TYPE_{tensor.dtype}", tensor.dims) for tensor in inputs
    ]
    assert [(entry.name, kinds.Name(entry.data_type), tuple(entry.dims)) for entry in config.output] == [
        (schema.output_name(at, tensor), f"TYPE_{tensor.dtype}", tensor.dims) for at, tensor in enumerate(outputs)
    ]
    assert "INTER_OP_THREAD_COUNT" not in config.parameters
