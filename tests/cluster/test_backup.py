"""A backup holds what was there when it was made, secrets and all; the books of what is restored are right."""

from pathlib import Path

import pytest

from drills.cluster import Cluster
from tests.cluster.operated import Customer, Refused, deploy

pytestmark = pytest.mark.cluster


async def test_what_is_restored_is_what_was_there_and_its_books_are_right(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    before, after = Customer(cluster), Customer(cluster)
    await before.register()
    order = await before.buy()
    print(await deploy("backup", "--to", str(folder)))
    await after.register()
    with pytest.raises(Refused, match=r"the shop has \d+ orders, which would be lost; to mean it: OVERWRITE=1"):
        await deploy("restore", "--from", str(folder))
    assert await after.known(), "what was refused has changed nothing"
    print(await deploy("restore", "--from", str(folder), OVERWRITE="1"))
    assert await before.orders() == [order]
    assert not await after.known()
    assert await before.buy() in await before.orders()
    assert "audit: clean" in await deploy("audit")


async def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"is not a backup: postgres\.tar\.gz is missing in it"):
        await deploy("restore", "--from", str(tmp_path), OVERWRITE="1")
    (tmp_path / "something").touch()
    with pytest.raises(Refused, match="is not empty; nothing was written"):
        await deploy("backup", "--to", str(tmp_path))
