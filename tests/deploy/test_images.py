"""Container files, scripts, manifests and locks of deploy/: real linters, strict validation, and that they agree."""

import os
import re
import subprocess
import sys
import tomllib

import dask
import pytest
import yaml

from deploy.chart import ROOT, check, pods_in, tool

DEPLOY = ROOT / "deploy"
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)
LOCKS = ("build.txt", "clouds.txt", "gpu.txt", "tools.txt")


def lint(name, *arguments, cwd=ROOT):
    return subprocess.run([tool(name), *arguments], cwd=cwd, check=False, capture_output=True, text=True)


def test_hadolint_has_nothing_to_say_and_would_have(tmp_path):
    assert lint("hadolint", "deploy/Dockerfile").stdout == ""
    careless = (DEPLOY / "Dockerfile").read_text().replace('"libexpat1=2.5.*"', "libexpat1") + "USER root\n"
    (tmp_path / "Dockerfile").write_text(careless)
    assert {"DL3008", "DL3002"} <= set(re.findall(r"DL\d+", lint("hadolint", str(tmp_path / "Dockerfile")).stdout))


def test_shellcheck_and_yamllint_have_nothing_to_say():
    assert lint("shellcheck", *(str(path) for path in DEPLOY.glob("*.sh"))).stdout == ""
    files = ("deploy", "helm/calfin-cloud/values.yaml", "helm/calfin-cloud/values", "helm/calfin-cloud/Chart.yaml")
    assert lint("yamllint", "--strict", "-c", "deploy/.yamllint", *files).stdout == ""


def test_zizmor_has_nothing_to_say_and_would_have(tmp_path):
    """It parses the workflows, and finds actions by a tag, which can be moved, and text that a shell would run."""
    flags = ("--offline", "--no-progress", "--quiet")
    assert lint("zizmor", *flags, "deploy/github/images.yml", ".github/workflows/ci.yml").returncode == 0
    careless = re.sub("@[0-9a-f]{40}", "@v1", (DEPLOY / "github" / "images.yml").read_text())
    (tmp_path / "images.yml").write_text(careless.replace('"$NAME"', "${{ steps.name.outputs.image }}"))
    told = lint("zizmor", *flags, str(tmp_path / "images.yml")).stdout
    assert {"unpinned-uses", "template-injection"} <= set(re.findall(r"\[([a-z-]+)\]", told))


def build(folder, docker, *words, **environment):
    """Run build.sh with a program of this text in place of docker."""
    (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (folder / "docker").chmod(0o755)
    told = os.environ | environment | {"PATH": f"{folder}:{os.environ['PATH']}"}
    call = [DEPLOY / "build.sh", "calfin-cloud:0", "cpu", *words]
    return subprocess.run(call, env=told, check=False, capture_output=True, text=True)


def test_a_base_image_without_a_digest_is_refused(tmp_path):
    done = build(tmp_path, "true", "python:3.11-slim-bookworm")
    assert done.returncode == 2
    assert "must end in @sha256:" in done.stderr


def test_a_docker_without_buildx_is_told_before_anything_else(tmp_path):
    done = build(tmp_path, "exit 125")
    assert done.returncode == 2
    assert done.stderr.startswith("build.sh: docker with the plugin buildx is needed")


@pytest.mark.parametrize(("wanted", "platform"), [({}, "linux/amd64"), ({"PLATFORM": "linux/arm64"}, "linux/arm64")])
def test_an_image_is_built_for_the_nodes_and_not_for_the_machine_that_builds(tmp_path, wanted, platform):
    done = build(tmp_path, 'echo "$@"', f"python@sha256:{'0' * 64}", **wanted)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[words.index("--platform") + 1] == platform


@pytest.mark.parametrize(
    ("ref", "image"),
    [("v0.2.0", "ghcr.io/icelab/calfin-cloud:0.2.0"), ("try/tags", "ghcr.io/icelab/calfin-cloud:try-tags")],
)
def test_the_workflow_builds_scans_and_pushes_one_name_that_the_chart_asks_for(tmp_path, ref, image):
    steps = yaml.safe_load((DEPLOY / "github" / "images.yml").read_text())["jobs"]["build"]["steps"]
    by_name = {step.get("name"): step for step in steps}
    told = {"IMAGE": "ghcr.io/IceLab/calfin-cloud", "GITHUB_REF_NAME": ref, "GITHUB_OUTPUT": str(tmp_path / "output")}
    subprocess.run(["bash", "-ec", by_name["Name of the image"]["run"]], env=os.environ | told, check=True)
    assert (tmp_path / "output").read_text() == f"image={image}\n"
    named = [by_name["Build"]["env"]["NAME"], by_name["Scan"]["with"]["image-ref"], by_name["Push"]["env"]["NAME"]]
    assert set(named) == {"${{ steps.name.outputs.image }}"}
    assert all('"$NAME"' in by_name[step]["run"] and "IMAGE" not in by_name[step]["run"] for step in ("Build", "Push"))


def test_the_image_holds_what_the_package_is_built_from_and_no_builder():
    text = (DEPLOY / "Dockerfile").read_text()
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for word in line.split()}
    assert copied == {line[1:] for line in ignore if line.startswith("!")}
    assert all((ROOT / path).exists() for path in copied)
    final = text[text.index("AS base") :]
    assert "USER 10001:10001" in final
    assert not re.search(r"\b(uv|pip|gcc)\b (install|pip)", final)
    for command in re.findall(r"pip install (?:[^&]|\\\n)+", text):
        assert "--require-hashes" in command or "--no-deps --compile-bytecode /wheels" in command, command


def test_the_cpu_image_alone_lacks_what_openvino_does_not_need():
    left_out = re.findall(r"^([a-z-]+) ;", (DEPLOY / "left_out.txt").read_text(), re.MULTILINE)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {"keras", "tensorflow"} <= {re.match(r"[\w-]+", one)[0] for one in wanted}
    assert set(left_out) == {"keras", "tensorflow", "kubernetes", "kubernetes-asyncio"}
    stages = re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    by_name = {stage.split()[2]: stage for stage in stages}
    assert [name for name, stage in by_name.items() if "--overrides deploy/left_out.txt" in stage] == ["builder"]
    copied = {name: re.findall(r"--from=(\S+)", stage) for name, stage in by_name.items()}
    assert {name: of for name, of in copied.items() if of} == {
        "gpu": ["gpu-builder"],
        "training": ["training-builder"],
        "cpu": ["builder"],
    }


def test_what_starts_workers_imports_none_of_the_kubernetes_clients_that_the_image_lacks():
    code = """
import sys
sys.modules |= dict.fromkeys(("kubernetes", "kubernetes_asyncio", "pykube"))
import dask_kubernetes.operator, kr8s, calfin_cloud.clusters
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dask_reads_from_the_image_that_workers_are_not_profiled():
    text = (DEPLOY / "Dockerfile").read_text()
    setting = re.compile(r"\b(DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED)=(\w+)")
    assert dask.config.collect_env(dict(setting.findall(text[text.index("AS base") : text.index("AS gpu\n")]))) == {
        "distributed": {"worker": {"profile": {"enabled": False}}}
    }
    others = [path for folder in ("deploy", "helm") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert [path.name for path in others if b"PROFILE__ENABLED" in path.read_bytes()] == ["Dockerfile"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_has_a_hash_and_no_address(lock):
    text = (DEPLOY / lock).read_text()
    assert "://" not in text
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert PIN.match(block)
        assert "--hash=sha256:" in block, block


def test_the_locks_of_the_image_do_not_contradict_the_constraints():
    base = dict(PIN.findall((ROOT / "constraints.txt").read_text()))
    for lock in ("clouds.txt", "gpu.txt"):
        added = dict(PIN.findall((DEPLOY / lock).read_text()))
        assert added
        assert {name: base[name] for name in added.keys() & base.keys()} == {}, f"{lock} repeats constraints.txt"
    assert {"dask-cuda", "nvidia-cudnn-cu12"} <= dict(PIN.findall((DEPLOY / "gpu.txt").read_text())).keys()


def test_the_images_hold_what_dasks_dashboard_is_drawn_with():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(one.startswith("bokeh") for one in extras["kubernetes"])
    assert "--extra kubernetes" in (DEPLOY / "Dockerfile").read_text()
    assert {"bokeh", "xyzservices"} <= dict(PIN.findall((ROOT / "constraints.txt").read_text())).keys()


@pytest.mark.parametrize("name", sorted(path.name for path in (DEPLOY / "examples").glob("*.yaml")))
def test_an_example_is_what_a_strict_api_server_takes(name):
    for resource in yaml.safe_load_all((DEPLOY / "examples" / name).read_text()):
        check(resource)
        for _, pod in pods_in(resource):
            assert pod["securityContext"]["runAsNonRoot"]
            for container in pod["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"]
                if "worker" in container["args"]:
                    limit = container["args"][container["args"].index("--memory-limit") + 1]
                    assert limit == container["resources"]["limits"]["memory"]


def test_the_hub_image_has_the_python_and_the_extras_of_the_workers():
    environment = yaml.safe_load((DEPLOY / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[0] == "--constraint versions.txt"
    assert "..[s3,gateway,kubernetes]" in pip
    assert "AS base" in (DEPLOY / "Dockerfile").read_text()
    assert "python:3.11-" in (DEPLOY / "build.sh").read_text()


def test_the_certificates_are_signed_by_their_authority_whose_key_is_gone(tmp_path):
    subprocess.run([DEPLOY / "certificates.sh", tmp_path / "tls"], check=True)
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    verify = ["openssl", "verify", "-CAfile", "ca.crt", "tls.crt"]
    assert (
        subprocess.run(verify, cwd=tmp_path / "tls", check=True, capture_output=True, text=True).stdout
        == "tls.crt: OK\n"
    )
    assert (tmp_path / "tls" / "tls.key").stat().st_mode & 0o077 == 0
