"""Further releases of a shop without training: its first one under other numbers."""

from __future__ import annotations

import json
import shutil

from features.database.engine import open_database
from features.releases.release import MANIFEST_FILE, Manifest
from features.releases.release_table import ReleaseTable
from features.schema import FUSION_MODEL, ITEM_TOWER_MODEL, feature_service, interest_view
from features.settings import Settings
from features.store import apply


def copy_release(settings: Settings, *numbers: int) -> ReleaseTable:
    """Records release 1's model as candidates under these numbers; they have no long-term vectors.

    Returns:
        The shop's release table.
    """
    repository = settings.model_repository
    first = json.loads((repository / FUSION_MODEL / "1" / MANIFEST_FILE).read_text())
    table = ReleaseTable(open_database(settings.log_url))
    for number in numbers:
        for model in (FUSION_MODEL, ITEM_TOWER_MODEL):
            shutil.copytree(repository / model / "1", repository / model / str(number))
        names = {"feature_service": feature_service(number), "feature_view": interest_view(number)}
        manifest = Manifest(**first | names | {"release": number})
        (repository / FUSION_MODEL / str(number) / MANIFEST_FILE).write_text(json.dumps(manifest.to_json()))
        tower = repository / ITEM_TOWER_MODEL / str(number) / MANIFEST_FILE
        tower.write_text(json.dumps(json.loads(tower.read_text()) | {"release": number}))
        generated = {"release": number, "interest_dim": manifest.interest_dim}
        (settings.generated / f"v{number}.json").write_text(json.dumps(generated))
        table.record(number, manifest, "test", "a copy")
    apply(settings)
    return table
