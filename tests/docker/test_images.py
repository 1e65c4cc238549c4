"""The images are made by the Makefile's own targets, and compose.yaml says what its specification allows, and no secret."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
OWN_IMAGES = {"nightshelf/jobs-cpu:local", "nightshelf/airflow:local"}
ENVIRONMENTS = {"jobs-cpu": "jobs", "jobs-cuda": "jobs", "airflow": "airflow"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions with their arguments, continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    words = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(instruction.upper(), " ".join(argument.split())) for instruction, argument in words]


def arguments(dockerfile: Path, instruction: str) -> list[str]:
    return [argument for name, argument in instructions(dockerfile) if name == instruction]


def test_there_is_one_image_for_each_environment() -> None:
    assert {path.stem for path in DOCKERFILES} == set(ENVIRONMENTS)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_made_by_the_makefiles_own_targets(dockerfile: Path) -> None:
    """Packages come into an image by `make .venv/NAME/ready` alone, and that target is the one that `make env` runs."""
    runs = arguments(dockerfile, "RUN")
    made = [target for run in runs for target in re.findall(r"\bmake (\S+)", run) if "/" in target]
    assert made == [f".venv/{ENVIRONMENTS[dockerfile.stem]}/ready"]
    assert not any(re.search(r"\b(pip3?|uv|conda|poetry)\b", run) for run in runs)
    assert made[0] in re.search(r"^env: (.*?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    plan = subprocess.run(["make", "-n", "-B", made[0]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"scripts/make-environment {ENVIRONMENTS[dockerfile.stem]}" in plan


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_pinned_and_does_not_run_as_root(dockerfile: Path) -> None:
    (base,) = arguments(dockerfile, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm|\$\{JOBS_IMAGE\}", base)
    if base == "${JOBS_IMAGE}":
        assert arguments(dockerfile, "ARG") == ["JOBS_IMAGE=nightshelf/jobs-cpu:local"]
    else:
        assert arguments(dockerfile, "USER")[-1] == "nightshelf"
    assert not any("USER root" in f"{name} {argument}" for name, argument in instructions(dockerfile))


def test_the_two_jobs_images_differ_in_the_gpu_alone() -> None:
    cpu, cuda = (instructions(ROOT / "docker" / f"jobs-{kind}.Dockerfile") for kind in ("cpu", "cuda"))
    assert [step for step in cpu if step[0] not in ("ARG", "ENV")] == [
        step for step in cuda if step[0] not in ("ARG", "ENV")
    ]


def test_a_build_context_leaves_out_what_is_made_here() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "var", ".git"} <= set(ignored)


def test_compose_is_valid_by_its_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(compose, schema)
    compose["services"]["mlflow"]["prots"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, schema)
    del compose["services"]["mlflow"]["prots"]


def test_every_service_is_guarded(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["image"] in OWN_IMAGES or re.fullmatch(r"postgres:\d+\.\d+-bookworm", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if service.get("restart") != "no":
            assert "healthcheck" in service, name


def test_services_build_what_they_run(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if "build" in service:
            image = service["image"].split("/")[1].split(":")[0]
            assert service["build"]["dockerfile"] == f"docker/{image}.Dockerfile", name
            assert (ROOT / service["build"]["dockerfile"]).exists(), name


def test_an_image_is_built_once_and_after_the_one_that_it_stands_on(compose: dict[str, Any]) -> None:
    """Compose builds all at once: two that write one image collide, and a base that is not there yet is asked of Docker's hub."""
    builders = {name: service for name, service in compose["services"].items() if "build" in service}
    images = [service["image"] for service in builders.values()]
    assert sorted(images) == sorted(OWN_IMAGES)
    for name, service in builders.items():
        (base,) = arguments(ROOT / service["build"]["dockerfile"], "FROM")
        if base == "${JOBS_IMAGE}":
            context = service["build"]["args"]["JOBS_IMAGE"]
            needed = service["build"]["additional_contexts"][context].removeprefix("service:")
            assert builders[needed]["image"] == "nightshelf/jobs-cpu:local", name


def test_sparks_workers_may_load_libraries_from_their_temporary_folder(compose: dict[str, Any]) -> None:
    """Docker mounts a tmpfs noexec unless told, and Parquet's zstd unpacks its library there: no table could be written."""
    for name, service in compose["services"].items():
        if "deploy.worker.Worker" in str(service.get("command")):
            assert service["tmpfs"] == ["/tmp:exec"], name


def test_a_home_is_the_same_for_all_and_can_be_another_shops(compose: dict[str, Any]) -> None:
    homes = {service.get("environment", {}).get("NIGHTSHELF_HOME") for service in compose["services"].values()}
    assert homes - {None} == {"${NIGHTSHELF_HOME:-/data/demo}"}


def test_what_a_service_waits_for_exists(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} waits for {needed}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], needed
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(compose["volumes"]), name


def test_no_secret_lies_in_the_repository(compose: dict[str, Any]) -> None:
    """Each password and key comes from docker/.env, which git ignores, and an empty one stops compose at once."""
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY|_CONN$", variable):
                assert re.search(r"\$\{[A-Z_]+:\?", str(value)), f"{name}: {variable}"
    example = dict(
        line.split("=", 1)
        for line in (ROOT / "docker" / ".env.example").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    asked = set(re.findall(r"\$\{([A-Z_]+):", (ROOT / "docker" / "compose.yaml").read_text()))
    assert asked == set(example)
    assert not any(example[name] for name in asked if re.search(r"PASSWORD|SECRET|_KEY$", name))
    assert subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT).returncode in (0, 128)


def test_the_stages_find_the_cluster_the_tracker_and_the_key(compose: dict[str, Any]) -> None:
    scheduler = compose["services"]["airflow-scheduler"]["environment"]
    assert scheduler["NIGHTSHELF_SPARK_MASTER"].removeprefix("spark://").split(":")[0] in compose["services"]
    assert scheduler["MLFLOW_TRACKING_URI"].removeprefix("http://").split(":")[0] in compose["services"]
    workers = [
        name for name, service in compose["services"].items() if "deploy.worker.Worker" in str(service.get("command"))
    ]
    assert len(workers) == 2
    shared = compose["services"]["airflow-scheduler"]["volumes"]
    assert all(set(compose["services"][name]["volumes"]) <= set(shared) for name in workers)


@pytest.mark.parametrize("name", ["SPARK_HOME", "NIGHTSHELF_COMMAND"])
def test_the_paths_in_an_image_are_those_of_an_environment(name: str) -> None:
    """The environment that runs this test was made by the same target; only its root differs."""
    (path,) = re.findall(rf"{name}=(\S+)", (ROOT / "docker" / "jobs-cpu.Dockerfile").read_text())
    here = Path(sys.prefix) / path.removeprefix("/opt/nightshelf/.venv/jobs/")
    assert here.exists(), here
