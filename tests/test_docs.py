"""The documentation says what the code does: settings, problems, targets, paths and environment names."""

import importlib
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import chassis
import services
from chassis.migrations import ROOT
from chassis.problems import Problem
from chassis.secrets import SERVICES
from chassis.settings import ApplicationSettings
from local.edge import ROUTES, STOREFRONT
from services.order.settings import OrderSettings
from services.payment.settings import PaymentSettings
from services.product.settings import ProductSettings
from services.storefront.settings import StorefrontSettings
from services.user.settings import UserSettings

SETTINGS: dict[str, type[ApplicationSettings]] = {
    "user": UserSettings,
    "product": ProductSettings,
    "payment": PaymentSettings,
    "order": OrderSettings,
    STOREFRONT: StorefrontSettings,
}


def text_of(path: str) -> str:
    """A file of the repository."""
    return (ROOT / path).read_text()


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Every module that is served, imported."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not re.search(r"\.(tests|migrations|__main__)\b", found.name):
            yield importlib.import_module(found.name)


def problem_codes() -> set[str]:
    """The codes of every kind of problem that there is."""
    imported = [*modules(chassis), *modules(services)]
    assert len(imported) > 40

    def below(kind: type[Problem]) -> Iterator[type[Problem]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    # Those that tests make up for themselves stand in no module that is served.
    served = {module.__name__ for module in imported}
    return {kind.code for kind in below(Problem) if kind.__module__ in served}


def table_rows(path: str) -> Iterator[list[str]]:
    """The cells of every row of every table of a file."""
    for line in text_of(path).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def documented_settings(service: str) -> dict[str, str]:
    """The settings in the tables of a service's README, each with what its row says of the default."""
    return {
        name: cells[1]
        for cells in table_rows(f"services/{service}/README.md")
        for name in re.findall(r"`([A-Z][A-Z_]+)`", cells[0])
    }


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_stands_in_the_readme_of_its_service(service: str) -> None:
    documented = set(documented_settings(service)) - {"SECRETS_DIR"}
    assert documented == {name.upper() for name in SETTINGS[service].model_fields}


def written(value: object) -> set[str]:
    """How a default may be written."""
    match value:
        case bool():
            return {"yes" if value else "no"}
        case float():
            return {f"{value:g}"}
        case int() if value % 2**20 == 0:
            return {str(value), f"{value // 2**20} MiB"}
        case _:
            return {str(value)}


@pytest.mark.parametrize("service", SETTINGS)
def test_a_readme_gives_the_default_of_each_number_and_switch(service: str) -> None:
    rows = documented_settings(service)
    for name, field in SETTINGS[service].model_fields.items():
        if isinstance(field.default, int | float):
            defaults = re.sub(r"(?<=\d)[ ,_](?=\d{3})", "", rows[name.upper()])
            assert any(re.search(rf"(?<![\d.]){re.escape(text)}(?!\d)", defaults) for text in written(field.default)), (
                name
            )


def test_every_problem_has_a_section() -> None:
    sections = re.findall(r"^## (.+)$", text_of("docs/problems.md"), re.MULTILINE)
    assert len(set(sections)) == len(sections)
    assert set(sections) == problem_codes()


def test_a_section_of_a_problem_has_its_status_and_what_to_do() -> None:
    _, *sections = re.split(r"^## ", text_of("docs/problems.md"), flags=re.MULTILINE)
    statuses = {section.partition("\n")[0]: re.search(r"\*\*(\d{3})\.\*\*", section) for section in sections}
    for module in (*modules(chassis), *modules(services)):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Problem) and kind is not Problem:
                found = statuses[kind.code]
                assert found is not None, kind
                assert int(found[1]) == kind.status, kind
    assert all("*What to do:*" in section for section in sections)


def make_targets() -> set[str]:
    """The targets of the Makefile that are for people."""
    return set(re.findall(r"^([a-z]+):.*##", text_of("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "docs/problems.md"])
def test_every_make_target_that_is_named_exists(path: str) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", text_of(path), re.DOTALL)
    commands = [command for block in code for command in re.findall(r"\bmake((?: [^\n#`]+)?)", block)]
    named = {word for command in commands for word in command.split() if re.fullmatch(r"[a-z]+", word)}
    assert named <= make_targets()
    assert path == "docs/problems.md" or named


def test_the_table_of_ports_and_paths_is_that_of_the_edge() -> None:
    routes: dict[str, str] = {}
    ports: dict[str, str] = {}
    for cells in table_rows("README.md"):
        paths = re.findall(r"`(/api/v1/[^`]+)`", cells[0])
        service = cells[1].strip("[").partition("]")[0] if len(cells) == 3 else ""
        if paths or service == STOREFRONT:
            routes |= dict.fromkeys(paths, service)
            ports[service] = cells[2]
    assert routes == {path: service for path, service in ROUTES.items() if not path.startswith("/docs")}
    assert ports == {name: str(kind.model_fields["port"].default) for name, kind in SETTINGS.items()}


def test_every_service_has_its_documentation_page_at_the_edge() -> None:
    assert {path: service for path, service in ROUTES.items() if path.startswith("/docs/")} == {
        f"/docs/{service}": service for service in SERVICES
    }


def committed() -> list[Path]:
    """The files that are, or are about to be, in the repository."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_index_or_a_machine_s_own_path() -> None:
    # Spelt in parts, since this file is looked through too.
    hosts = ("pypi" + r"\.org", "files.python" + "hosted", "index" + "-url[ =]+http")
    forbidden = re.compile("|".join((*hosts, "/ro" + "ot/", "/ho" + r"me/\w", "/wo" + "rk/")))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in committed()
        if (match := forbidden.search(path.read_text(errors="replace")))
    ]
    assert found == []


@pytest.mark.parametrize("path", [path for path in committed() if path.suffix == ".md"], ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def environment_names(compose: str) -> Iterator[tuple[str, str]]:
    """The variables of docker-compose.yml, each with the block of lines that it stands in."""
    block = ""
    for line in compose.splitlines():
        if re.match(r"(  )?[\w-]+:", line):
            block = line.strip().split(":")[0]
        for name in re.findall(r"^\s+([A-Z][A-Z_]+): ", line):
            yield block, name


def test_every_environment_name_of_compose_is_a_setting() -> None:
    known = {name.upper() for kind in SETTINGS.values() for name in kind.model_fields} | {"SECRETS_DIR"}
    foreign: dict[str, Any] = {"postgres": {"PGDATA"}, "grafana": {"GF_AUTH_ANONYMOUS_ENABLED"}}
    names = list(environment_names(text_of("docker-compose.yml")))
    assert names
    for block, name in names:
        allowed = foreign.get(block, set())
        assert name in known | allowed or name.startswith(("POSTGRES_", "PG")), f"{name} of {block}"
