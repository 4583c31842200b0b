"""What the doctor says of broken servers, keys, stores and clusters, each of them real."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import formatdate
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import dask
import pytest
import s3fs
from distributed import LocalCluster, Nanny, Scheduler, SpecCluster
from servers.files import _Handler as FileHandler
from servers.files import running, serve_folder
from servers.processes import free_ports
from servers.rasters import HERE, make_item, ramp, write_tif

from calfin_cloud import doctor
from calfin_cloud.cli import main
from calfin_cloud.doctor import remote
from calfin_cloud.domains import Domain, box_grid, write_domains
from calfin_cloud.fronts import calibration_beside
from calfin_cloud.imagery import retries
from calfin_cloud.network import weights_path
from calfin_cloud.pipeline import MapSettings, made_by
from calfin_cloud.storage import hold_lease, keep_domain, open_store

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PLANTED = "plantedSecret0plantedSecret0"
HTML = (200, {"Content-Type": "text/html; charset=utf-8"})


@pytest.fixture
def site(tmp_path):
    """A web server with one good scene."""
    write_tif(tmp_path / "good.tif", ramp())
    write_domains([HERE], tmp_path / "domains.geojson")
    with serve_folder(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Few attempts, at once, and a file system for each environment."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(retries.ATTEMPTS, "unreachable", 2)


def read(href, catalog=None):
    """What the doctor says of a scene at an address."""
    item = make_item(catalog or "/items.json", {"nir08": href})
    found = doctor.check_scene(item.to_dict(transform_hrefs=False), HERE, "here")
    assert found.check == "scene of landsat-c2-l1 here"
    return found


def says(found, status, *words):
    """Whether a finding has this status and these words, and a remedy where it needs one."""
    told = f"{found.detail}; {found.remedy}"
    assert found.status == status, found
    assert bool(found.remedy) == (status != "ok"), found
    for word in words:
        assert word in told, found


def run(capsys, *words):
    """Exit code, and findings by check, of `calfin doctor`."""
    capsys.readouterr()
    code = main(["doctor", "--json", *words])
    found = [doctor.Finding(**about) for about in json.loads(capsys.readouterr().out)]
    return code, {finding.check: finding for finding in found}


def publish(site, *hrefs):
    """Write a catalogue of scenes at these addresses, and return the words that name it."""
    items = [make_item("", {"nir08": href}).to_dict(transform_hrefs=False) for href in hrefs]
    (site.folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    words = ["--catalog", f"{site.url}/items.json", "--domains", str(site.folder / "domains.geojson")]
    return [*words, "--period", "2019/2030"]


# --- scenes behind web servers ----------------------------------------------------------------------------------------


def test_a_scene_that_can_be_read_is_well(site):
    says(read(f"{site.url}/good.tif"), "ok", "scene-")


def test_a_missing_scene_is_told(site):
    says(read(f"{site.url}/nothing.tif"), "problem", "404", "it is not there")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_asks_for_credentials_and_shows_no_signature(site, status):
    site.answers["good.tif"] = [(status, {})] * 20
    found = read(f"{site.url}/good.tif?sig={PLANTED}")
    says(found, "problem", str(status), "credentials are missing, have expired")
    assert PLANTED not in str(found)


def test_a_login_page_in_place_of_a_scene_is_told(site):
    site.answers["good.tif"] = [HTML] * 20
    says(read(f"{site.url}/good.tif"), "problem", "text/html", "wants a login")


def test_a_redirect_to_a_login_page_elsewhere_is_told(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("login")
    (folder / "login").write_text("<html>Who are you?</html>")
    with serve_folder(folder) as other:
        site.answers["good.tif"] = [(302, {"Location": f"{other.url}/login"})] * 20
        found = read(f"{site.url}/good.tif")
    says(found, "problem", f"redirects to 127.0.0.1:{other.server_port}", "wants a login")


def test_a_silent_server_is_told_in_time(site, monkeypatch):
    monkeypatch.setattr(remote, "DEADLINE_S", 2.0)
    began = time.monotonic()
    says(read(f"{site.url}/hang/good.tif"), "problem", "no answer within 2 s", "firewall")
    assert time.monotonic() - began < 8


def test_a_server_that_is_not_there_is_told():
    (port,) = free_ports(1)
    says(read(f"http://127.0.0.1:{port}/good.tif"), "problem", "nobody answers there")


def test_a_catalogue_that_is_not_there_is_told_once_in_a_sentence_with_one_remedy(capsys, caplog):
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}/nothing"
    assert main(["doctor", "--catalog", address, "--cluster", "none"]) == 1
    (told,) = (line for line in capsys.readouterr().out.splitlines() if "cannot read the catalogue" in line)
    why, remedy = told.split("; ")
    refused = "Failed to establish a new connection: [Errno 111] Connection refused"
    assert why == f"problem  catalogue: cannot read the catalogue {address}: {refused}"
    assert remedy.startswith("nobody answers there: check the address")
    assert "Retrying" not in caplog.text


def test_a_name_that_nobody_knows_is_told(monkeypatch):
    monkeypatch.setattr(remote, "DEADLINE_S", 60.0)
    says(read("https://no-such-host.invalid/good.tif", "https://no-such-host.invalid"), "problem", "DNS")


def test_https_to_a_server_without_tls_is_told(site):
    found = read(f"https://127.0.0.1:{site.server_port}/good.tif")
    says(found, "problem", "http and https")


def test_an_address_that_a_catalogue_may_not_name_is_told_with_its_reason():
    says(read("/etc/passwd", "https://example.org"), "problem", "refused to open", "a local file")


# --- the catalogue and its clock --------------------------------------------------------------------------------------


def test_a_whole_check_of_a_good_site_ends_with_0(site, tmp_path, capsys):
    words = publish(site, f"{site.url}/good.tif")
    code, found = run(capsys, *words, "--store", str(tmp_path / "new" / "store"), "--cluster", "none")
    assert code == 0
    assert {finding.status for finding in found.values()} <= {"ok", "warning"}
    assert {"libraries", "network", "credentials", "catalogue", "clock", "store here", "store content"} <= set(found)
    assert not (tmp_path / "new" / "store").exists()


def test_a_line_a_finding_for_people_says_what_to_do(site, capsys):
    words = publish(site, f"{site.url}/nothing.tif")
    assert main(["doctor", *words, "--cluster", "none"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert "scene of landsat-c2-l1 here: " in line
    assert line.endswith("a catalogue may be older than its files")


def test_a_scene_of_each_collection_and_host_is_tried_and_no_more(site):
    items = [make_item("", {"nir08": f"{site.url}/{n}.tif"}) for n in range(3)]
    items += [make_item("", {"nir08": "http://127.0.0.2/a.tif"}), make_item("", {"B04": "x"}, collection="unknown")]
    found, examples = doctor.find_examples(lambda _: items, [HERE])
    assert [item.id for item, _ in examples] == [items[0].id, items[3].id, items[4].id]
    assert [finding.detail for finding in found] == ["5 scenes of here"]


def test_a_catalogue_without_scenes_is_a_warning_and_one_that_is_no_catalogue_a_problem(site, capsys):
    code, found = run(capsys, *publish(site), "--cluster", "none")
    assert code == 0
    says(found["catalogue"], "warning", "no scene of here", "check period")
    (site.folder / "items.json").write_text("<html>")
    words = ["--catalog", f"{site.url}/items.json?token={PLANTED}", "--domains", str(site.folder / "domains.geojson")]
    code, found = run(capsys, *words, "--period", "2020", "--cluster", "none")
    assert code == 1
    says(found["catalogue"], "problem", "cannot read the catalogue")
    assert PLANTED not in str(found)


@pytest.mark.parametrize(("ahead_s", "status"), [(0, "ok"), (200, "warning"), (-3000, "problem")])
def test_a_server_with_another_time_is_told(ahead_s, status):
    class Handler(FileHandler):
        def date_time_string(self, timestamp=None):
            return formatdate(time.time() + ahead_s, usegmt=True)

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, running(server):
        found = doctor.check_clock(f"http://127.0.0.1:{server.server_port}/")
    says(found, status, *(["NTP"] if ahead_s else []))


# --- this machine -----------------------------------------------------------------------------------------------------


def test_a_damaged_file_of_weights_is_told(tmp_path):
    (tmp_path / "my.weights.h5").write_bytes(b"cut")
    says(doctor.check_network(str(tmp_path / "my.weights.h5")), "problem", "no HDF5 file", "fetch the weights again")


def test_a_calibration_of_other_weights_is_told(tmp_path):
    weights = shutil.copy(weights_path("calfin-small-2"), tmp_path / "my.weights.h5")
    shutil.copy(calibration_beside(weights_path("calfin-efficient")), calibration_beside(weights))
    says(doctor.check_network(str(weights)), "problem", "must be made for my@", "calibrate")


def test_half_a_pair_of_keys_is_told_and_not_shown():
    says(doctor.check_keys({}), "ok")
    says(doctor.check_keys(dict.fromkeys(KEYS, PLANTED)), "ok")
    for here, lacking in (KEYS, KEYS[::-1]):
        found = doctor.check_keys({here: PLANTED})
        says(found, "problem", f"{lacking} is not", "set both")
        assert PLANTED not in str(found)


def test_certificates_of_ones_own_that_only_some_readers_know_are_told(tmp_path):
    own = tmp_path / "own.pem"
    own.write_text("-")
    everywhere = dict.fromkeys(("GDAL_CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), str(own))
    says(doctor.check_certificates({}), "ok")
    says(doctor.check_certificates(everywhere), "ok")
    says(doctor.check_certificates({"CURL_CA_BUNDLE": str(own)}), "warning", "not GDAL_CURL_CA_BUNDLE (scenes)", "all")
    gone = everywhere | {"AWS_CA_BUNDLE": str(tmp_path / "gone.pem")}
    says(doctor.check_certificates(gone), "problem", "no file where AWS_CA_BUNDLE says", "correct the path")


def test_a_foreign_database_of_proj_is_told(tmp_path):
    code = "from calfin_cloud import doctor; found = doctor.check_libraries(); print(found.status, found.remedy)"
    environment = os.environ | {"PROJ_DATA": str(tmp_path), "PROJ_LIB": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("problem "), said
    assert "unset PROJ_DATA" in said.stdout


def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    for free, status in ((10**8, "problem"), (5 * 10**9, "warning"), (10**12, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        for found in doctor.check_disk(str(tmp_path / "not" / "yet")):
            says(found, status)


def test_a_folder_of_workers_that_is_relative_and_not_yet_there_is_looked_for_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"temporary-directory": "scratch/of-dask"}):
        (found,) = doctor.check_disk(None)
    assert found.detail.endswith(f"free for temporary files in {tmp_path}")


# --- stores -----------------------------------------------------------------------------------------------------------


def test_a_store_where_nothing_may_be_written_is_told():
    says(doctor.check_store("/proc/store", "here"), "problem", "check")


def test_a_store_without_its_file_system_is_told():
    found = doctor.check_store("gs://bucket/store", "here")
    says(found, "problem", "needs a package", "[gcs]")


def test_a_store_of_other_settings_or_in_use_is_told(tmp_path):
    store, made = str(tmp_path / "store"), made_by(MapSettings(features=("plumes",)))
    says(doctor.check_made_by(store, "EPSG:3413", made), "ok", "new")
    open_store(store, crs="EPSG:3413", made_by=made)
    says(doctor.check_made_by(store, "EPSG:3413", made), "ok", "continues it")
    says(doctor.check_made_by(store, "EPSG:3031", made), "problem", 'crs is "EPSG:3413"', "choose another store")
    other = made_by(MapSettings(max_cloud=0.5))
    says(doctor.check_made_by(store, "EPSG:3413", other), "problem", "settings.max_cloud is 0.15", "--recompute")
    with hold_lease(store, "map"):
        says(doctor.check_made_by(store, "EPSG:3413", made), "warning", "writes to it now")


def test_a_store_with_other_domains_of_these_names_is_told(tmp_path):
    store, made = str(tmp_path / "store"), made_by(MapSettings())
    ours = Domain("a", box_grid((0, 0, 6_000, 6_000), 3413))
    open_store(store, crs=ours.crs, made_by=made)
    keep_domain(store, ours)
    says(doctor.check_made_by(store, ours.crs, made, [ours]), "ok", "continues it")
    says(doctor.check_made_by(store, ours.crs, made, [replace(ours, glacier_id="9")]), "problem", "`calfin retrace`")
    moved = Domain("a", box_grid((0, 0, 6_000, 9_000), 3413))
    says(doctor.check_made_by(store, ours.crs, made, [moved]), "problem", "has another grid", "rename it")


def test_a_bucket_is_checked_with_its_keys_and_nothing_stays_behind(s3):
    client = s3.client()
    client.create_bucket(Bucket="doctor")
    says(doctor.check_store("s3://doctor/store", "here"), "ok", "a second writer is held off")
    assert "Contents" not in client.list_objects_v2(Bucket="doctor")
    says(doctor.check_store("s3://nowhere/store", "here"), "problem", "there is no such bucket")


@pytest.mark.parametrize("name", KEYS)
def test_wrong_keys_of_a_bucket_are_told_and_not_shown(s3, monkeypatch, name):
    monkeypatch.setenv(name, PLANTED)
    found = doctor.check_store("s3://doctor-keys/store", "here")
    says(found, "problem", "the keys do not belong")
    for secret in (PLANTED, s3.key, s3.secret):
        assert secret not in str(found)


def test_missing_keys_of_a_bucket_are_told(s3, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    says(doctor.check_store("s3://doctor/store", "here"), "problem", "there are no credentials")


def test_a_folder_that_may_only_be_read_is_no_matter_of_credentials():
    error = PermissionError(errno.EACCES, "Permission denied", "/data/fronts/.doctor.part")
    says(doctor.findings.problem("store", error, ""), "problem", "the disk refuses: choose a folder")


def test_a_bucket_that_may_only_be_read_is_told(s3):
    owner = s3.new_user("reader-of-doctor")
    owner.client().create_bucket(Bucket="read-only", ACL="public-read")
    says(doctor.check_store("s3://read-only/store", "here"), "problem", "the server refuses")


def test_a_bucket_whose_key_may_not_delete_is_told(s3, monkeypatch):
    """A run would write, and end at the first lease that it gives back."""
    s3.client().create_bucket(Bucket="keep-all")
    writer = s3.new_user("writer-of-doctor")
    actions = ["s3:PutObject", "s3:GetObject", "s3:ListBucket"]
    where = ["arn:aws:s3:::keep-all", "arn:aws:s3:::keep-all/*"]
    who = {"AWS": ["arn:aws:iam:::user/writer-of-doctor"]}
    may = {"Effect": "Allow", "Principal": who, "Action": actions, "Resource": where}
    policy = {"Version": "2012-10-17", "Statement": [may]}
    s3.client().put_bucket_policy(Bucket="keep-all", Policy=json.dumps(policy))
    for name in KEYS:
        monkeypatch.setenv(name, writer.environment[name])
    s3fs.S3FileSystem.clear_instance_cache()
    says(doctor.check_store("s3://keep-all/store", "here"), "problem", "DeleteObject", "may not do this")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_wrong_endpoint_of_a_bucket_is_told(s3, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    says(doctor.check_store("s3://doctor/store", "here"), "problem", "nobody answers there")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint.replace("http:", "https:"))
    s3fs.S3FileSystem.clear_instance_cache()
    says(doctor.check_store("s3://doctor/store", "here"), "problem", "http and https")
    s3fs.S3FileSystem.clear_instance_cache()


# --- scenes in buckets ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(s3, tmp_path_factory):
    """A scene in a bucket whose reader pays, of another user."""
    path = write_tif(tmp_path_factory.mktemp("scene") / "good.tif", ramp())
    owner = s3.new_user("owner-for-doctor").client()
    owner.create_bucket(Bucket="usgs-landsat-like", ACL="authenticated-read")
    owner.put_object(Bucket="usgs-landsat-like", Key="good.tif", Body=path.read_bytes(), ACL="authenticated-read")
    payer = {"RequestPaymentConfiguration": {"Payer": "Requester"}}
    owner.put_bucket_request_payment(Bucket="usgs-landsat-like", **payer)
    return "s3://usgs-landsat-like"


def read_s3(href):
    item = make_item("https://example.org", {"nir08": href})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_REQUEST_PAYER", "requester")
        return doctor.check_scene(item.to_dict(transform_hrefs=False), HERE, "here")


def test_a_scene_whose_reader_pays_can_be_read_with_keys(bucket):
    says(read_s3(f"{bucket}/good.tif"), "ok")


def test_a_scene_whose_reader_pays_asks_for_keys(bucket, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    says(read_s3(f"{bucket}/good.tif"), "problem", "lets its reader pay")


@pytest.mark.parametrize("name", KEYS)
def test_wrong_keys_of_a_scene_are_told_and_not_shown(s3, bucket, monkeypatch, name):
    monkeypatch.setenv(name, PLANTED)
    found = read_s3(f"{bucket}/good.tif")
    says(found, "problem", "keys do not belong")
    for secret in (PLANTED, s3.key, s3.secret):
        assert secret not in str(found)


def test_a_scene_that_is_gone_and_a_bucket_that_never_was_are_told(bucket):
    says(read_s3(f"{bucket}/gone.tif"), "problem", "it is not there")
    says(read_s3("s3://never-was/gone.tif"), "problem", "there is no such bucket")


def test_a_wrong_endpoint_of_a_scene_is_told(s3, bucket, monkeypatch):
    (port,) = free_ports(1)
    for address, words in ((f"http://127.0.0.1:{port}", "nobody answers"), (f"https://{s3.endpoint[7:]}", "http and")):
        monkeypatch.delenv("AWS_HTTPS", raising=False)
        monkeypatch.setenv("AWS_S3_ENDPOINT", address)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        says(read_s3(f"{bucket}/good.tif"), "problem", words)


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and one worker, who says GPU where there is none and has little memory."""
    here = {"host": "127.0.0.1", "dashboard": False}
    worker = {"nthreads": 1, "memory_limit": "1300MiB", "resources": {"GPU": 1, "CPU": 1}}
    workers = {"blind": {"cls": Nanny, "options": here | worker}}
    with SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": here | {"port": 0}}) as cluster:
        yield cluster.scheduler_address


def test_a_worker_that_says_gpu_and_sees_none_is_told_and_one_with_little_memory(cluster, capsys):
    code, found = run(capsys, "--cluster", cluster)
    assert code == 1
    says(found["gpu of workers"], "problem", "say GPU and see none", "nvidia-smi")
    says(found["memory of workers"], "warning", "1.3 GiB a thread", "--worker-memory")
    says(found["clocks of workers"], "ok")
    says(found["cluster"], "ok", "1 workers of the same versions")


def test_a_worker_reads_and_writes_by_itself(cluster, site, tmp_path, capsys):
    words = publish(site, f"{site.url}/good.tif")
    _, found = run(capsys, *words, "--store", str(tmp_path / "store"), "--cluster", cluster)
    there = {check.partition(" on worker ")[0]: of for check, of in found.items() if " on worker " in check}
    assert set(there) == {"scene of landsat-c2-l1", "store"}
    for finding in there.values():
        says(finding, "ok")
    site.answers["good.tif"] = [(403, {})] * 20
    code, found = run(capsys, *words, "--cluster", cluster)
    assert code == 1
    assert sum(of.status == "problem" and "credentials" in of.remedy for of in found.values()) == 2


def test_workers_with_hardly_any_memory_are_told_before_a_task_kills_them():
    workers = {"tcp://a": {"memory_limit": 2**29, "nthreads": 1}, "tcp://b": {"memory_limit": 2**33, "nthreads": 1}}
    says(doctor.check_memory(workers), "problem", "0.5 GiB a thread")
    says(doctor.check_memory({"tcp://c": {"memory_limit": 0, "nthreads": 2}}), "ok")


def test_a_worker_of_another_version_is_told_with_the_table(tmp_path, capsys):
    other = tmp_path / "zarr-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 0.0.1\n")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(
            [*command, "--no-nanny", "--no-dashboard"], env=os.environ | {"PYTHONPATH": str(tmp_path)}, **quiet
        ) as worker:
            try:
                deadline = time.monotonic() + 600
                while len(cluster.scheduler_info["workers"]) < 2:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                code, found = run(capsys, "--cluster", cluster.scheduler_address)
            finally:
                worker.terminate()
    assert code == 1
    says(found["cluster"], "problem", "zarr", "0.0.1", "use one environment or image for all")


@pytest.mark.slow  # Dask asks again for 20 s
def test_a_scheduler_that_is_not_there_is_told(capsys):
    (port,) = free_ports(1)
    code, found = run(capsys, "--cluster", f"tcp://127.0.0.1:{port}")
    assert code == 1
    says(found["cluster"], "problem")


def test_what_the_environment_keeps_secret_is_in_no_finding(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", PLANTED)
    found = doctor.problem("a", f"https://user:word@host/x?sig={PLANTED} and {PLANTED}\nnext", "do")
    assert found.detail == "https://host/x and *** next"


# --- certificates of Dask ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "status"), [(300, "ok"), (10, "warning"), (-2, "problem")])
def test_a_certificate_of_dask_that_ends_is_told_in_time(tmp_path, days, status):
    places = ["-keyout", tmp_path / "key", "-out", tmp_path / "any.crt"]
    path, end = tmp_path / "tls.crt", time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=dask", *places],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "req", "-new", "-key", tmp_path / "key", "-subj", "/CN=dask", "-out", tmp_path / "csr"],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "index.txt").touch()
    (tmp_path / "serial").write_text("01")
    (tmp_path / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=c\n[c]\ndatabase={tmp_path}/index.txt\nserial={tmp_path}/serial\nnew_certs_dir={tmp_path}\n"
        "default_md=default\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    words = ["openssl", "ca", "-batch", "-config", tmp_path / "ca.cnf", "-cert", tmp_path / "any.crt"]
    words += ["-keyfile", tmp_path / "key", "-in", tmp_path / "csr", "-out", path, "-notext"]
    subprocess.run([*words, "-startdate", "20200101000000Z", "-enddate", end], check=True, capture_output=True)
    with dask.config.set({"distributed.comm.tls.client.cert": str(path)}):
        says(doctor.check_dask_certificate(), status, "lasts" if days > 0 else "ended 2 days ago")
    says(doctor.check_dask_certificate(), "ok", "without TLS")
