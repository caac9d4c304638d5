"""Images: those of the services and of the load tests are built here, the others pulled once, all brought to the nodes.

A tag of ours is a digest of what the image is made of. So a tag never moves to another image, nothing is built or
loaded that is there already, and a change of code rolls those services that it concerns and no other.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from deploy.cluster import nodes
from deploy.commands import CommandFailed, run, run_logged, succeeds
from deploy.target import STATE, Target
from deploy.terminal import Failed, Result
from local.edge import STOREFRONT

BUILD_TIMEOUT_S = 1200.0
PULL_TIMEOUT_S = 900.0
LOAD_TIMEOUT_S = 600.0
LOAD = "loadtest"
"""The overlay that has load from inside the cluster, and the image that it is made of."""
RECIPE = ("Dockerfile", ".dockerignore", "requirements.txt")
RECIPE_OF_LOAD = ("loadtests/Dockerfile", ".dockerignore", "requirements-dev.txt")
WITHOUT = {"grafana/grafana": "MONITORING=prometheus make deploy goes without Grafana"}
"""The images that the shop can be had without, and how."""
NOT_IN_AN_IMAGE = frozenset({"__pycache__", "tests", "testing.py"})
"""What .dockerignore keeps out."""


def release(image: str, root: Path = ROOT) -> str:
    """The tag of what the repository holds now, of a service's image or of the load tests'."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    if image == LOAD:
        wanted, parts = extras["loadtests"], (root / "loadtests",)
        files = [root / name for name in RECIPE_OF_LOAD]
    else:
        wanted, parts = (*project["dependencies"], *extras[image]), (root / "chassis", root / "services" / image)
        files = [root / name for name in RECIPE] + [root / "services" / "__init__.py"]
    digest = hashlib.sha256("\0".join(wanted).encode())
    files += [path for part in parts for path in part.rglob("*") if path.is_file()]
    for path in sorted(files):
        name = path.relative_to(root)
        if not NOT_IN_AN_IMAGE.intersection(name.parts):
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def names(target: Target) -> dict[str, str]:
    """The image of each service, and of the load tests where the overlay has them, by its name in the manifests."""
    prefix = f"{target.registry}/" if target.registry else ""
    wanted = (*SERVICES, STOREFRONT, *((LOAD,) if target.overlay == LOAD else ()))
    return {f"souk/{name}": f"{prefix}souk/{name}:{release(name)}" for name in wanted}


def here(image: str) -> bool:
    """Whether the local Docker has an image."""
    return succeeds(("docker", "image", "inspect", image))


def build(images: Mapping[str, str], result: Result) -> None:
    """Build what is not there; raises Failed."""
    missing = {name.removeprefix("souk/"): image for name, image in images.items() if not here(image)}
    for count, (name, image) in enumerate(missing.items()):
        result.progress(f"{name} ({count + 1} of {len(missing)})")
        how = f"--file={ROOT / 'loadtests/Dockerfile'}" if name == LOAD else f"--build-arg=SERVICE={name}"
        command = ("docker", "build", how, f"--tag={image}", str(ROOT))
        run_logged(command, STATE / "logs" / f"build-{name}.log", timeout_s=BUILD_TIMEOUT_S)
    result.text = f"built {', '.join(missing)}" if missing else "there"


def pull(images: Iterable[str], result: Result) -> None:
    """Pull what the local Docker does not have; raises Failed."""
    missing = [image for image in images if not here(image)]
    for image in missing:
        result.progress(f"pulling {image}")
        try:
            run(("docker", "pull", "--quiet", image), timeout_s=PULL_TIMEOUT_S)
        except CommandFailed as error:
            way_out = WITHOUT.get(image.rpartition(":")[0])
            raise Failed(f"the image {image} cannot be pulled: {error}" + (f"; {way_out}" if way_out else "")) from None
    result.text = f"pulled {', '.join(missing)}" if missing else "there"


def load(cluster: str, images: Iterable[str], result: Result) -> None:
    """Bring images to the nodes of a kind cluster that lack them, all in one go."""
    wanted = {full_name(image): image for image in images}
    lacking: dict[str, set[str]] = {}
    for node in nodes(cluster):
        there = set(run(("docker", "exec", node, "ctr", "--namespace=k8s.io", "images", "ls", "-q")).split())
        lacking[node] = {image for name, image in wanted.items() if name not in there}
    missing = set[str]().union(*lacking.values())
    if missing:
        result.progress(f"{len(missing)} images to {sum(map(bool, lacking.values()))} nodes")
        needing = ",".join(node for node, images_ in lacking.items() if images_)
        command = ("kind", "load", "docker-image", f"--name={cluster}", f"--nodes={needing}")
        run_logged((*command, *sorted(missing)), STATE / "logs" / "load.log", timeout_s=LOAD_TIMEOUT_S)
    result.text = f"{len(missing)} images loaded" if missing else "there"


def full_name(image: str) -> str:
    """As containerd names it: with the registry and the account that Docker leaves out."""
    first, _, rest = image.partition("/")
    if not rest:
        return f"docker.io/library/{image}"
    return image if "." in first or ":" in first or first == "localhost" else f"docker.io/{image}"


def push(images: Iterable[str], result: Result) -> None:
    """Push to the registry that the nodes pull from; raises Failed."""
    pushed = list(images)
    with ThreadPoolExecutor() as several:
        for image, _ in zip(pushed, several.map(_push, pushed), strict=True):
            result.progress(image)
    result.text = f"{len(pushed)} images"


def _push(image: str) -> None:
    try:
        run(("docker", "push", "--quiet", image), timeout_s=PULL_TIMEOUT_S)
    except CommandFailed as error:
        raise Failed(f"REGISTRY: {image} cannot be pushed: {error}") from None


def remove() -> int:
    """Remove the images that were built for a cluster, and return how many."""
    listed = run(
        ("docker", "image", "ls", "--filter=label=org.opencontainers.image.title", "--format={{.Repository}}:{{.Tag}}")
    )
    ours = [
        image
        for image in listed.split()
        if any(f"souk/{name}:" in image for name in (*SERVICES, STOREFRONT, LOAD))
        and not image.endswith((":compose", ":<none>"))
    ]
    if ours:
        run(("docker", "image", "rm", *ours))
    return len(ours)
