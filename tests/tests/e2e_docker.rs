//! The unmodified `docker` client against `ctld`.

use std::process::Stdio;

use tests::daemon::Daemon;
use tests::process::{DEADLINE, eventually, wait};
use tests::registry::Registry;

fn ready() -> (Daemon, String) {
    let registry = Registry::with_images();
    let daemon = Daemon::start();
    let reference = registry.reference("busybox:latest");
    let pulled = daemon.docker(&["pull", &reference]).ok();
    assert!(pulled.stdout.contains("Status: Downloaded newer image"), "{pulled:?}");
    (daemon, reference)
}

#[test]
fn version_and_info() {
    let daemon = Daemon::start();
    let version =
        daemon.docker(&["version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}"]).ok();
    assert_eq!(version.text(), "1.53 1.40");
    let info = daemon.docker(&["info", "--format", "{{.OSType}} {{.Driver}} {{.DefaultRuntime}}"]).ok();
    assert!(info.text().starts_with("linux overlay"), "{info:?}");
    let (status, body) = daemon.api("GET", "/v1.99/info", "");
    assert_eq!(status, 400);
    assert!(body.contains("too new"), "{body}");
    let (status, body) = daemon.api("GET", "/v1.12/info", "");
    assert_eq!(status, 400);
    assert!(body.contains("too old"), "{body}");
    let (status, body) = daemon.api("GET", "/nonsense", "");
    assert_eq!((status, body.trim()), (404, r#"{"message":"page not found"}"#));
    let (status, body) = daemon.api("POST", "/v1.45/containers/create", "{nonsense");
    assert_eq!(status, 400);
    assert!(body.contains("\"message\""), "{body}");
}

#[test]
fn the_everyday_commands() {
    let (mut daemon, image) = ready();
    assert_eq!(daemon.docker(&["run", "--rm", &image, "echo", "hi"]).ok().stdout, "hi\n");
    daemon.docker(&["run", "--rm", &image, "sh", "-c", "exit 3"]).fails_with(3);
    daemon.docker(&["run", "--rm", &image, "nope"]).fails_with(127);
    daemon.docker(&["run", "--rm", &image, "/etc/passwd"]).fails_with(126);
    assert_eq!(daemon.docker_with(&["run", "--rm", "-i", &image, "cat"], b"piped").ok().stdout, "piped");
    let id =
        daemon.docker(&["run", "-d", "--name", "web", &image, "sh", "-c", "echo started; sleep 1000"]).ok();
    let id = id.text().to_owned();
    let row =
        daemon.docker(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Names}} {{.State}}"]).ok();
    assert_eq!(row.text(), format!("{id} {image} web running"));
    eventually("the log has the line", || {
        (daemon.docker(&["logs", "web"]).ok().stdout == "started\n").then_some(())
    });
    assert_eq!(daemon.docker(&["exec", "web", "echo", "inside"]).ok().text(), "inside");
    daemon.docker(&["exec", "web", "sh", "-c", "exit 5"]).fails_with(5);
    assert_eq!(daemon.docker_with(&["exec", "-i", "web", "wc", "-c"], b"123").ok().text(), "3");
    assert_eq!(
        daemon.docker(&["inspect", "-f", "{{.State.Running}} {{.Name}}", "web"]).ok().text(),
        "true /web"
    );
    let top = daemon.docker(&["top", "web"]).ok();
    assert!(top.stdout.contains("sleep 1000"), "{top:?}");
    let stats = daemon.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"]).ok();
    assert!(stats.text().starts_with("web "), "{stats:?}");
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(daemon.docker(&["ps", "-aq", "--no-trunc"]).ok().text(), id);
    assert_eq!(daemon.docker(&["wait", "web"]).ok().text(), "137");
    daemon.docker(&["rm", "web"]).ok();
    daemon.docker(&["inspect", "web"]).fails_with(1).says("No such object: web");
    assert!(daemon.docker(&["images"]).ok().stdout.contains("busybox"));
    assert!(daemon.docker(&["rmi", &image]).ok().stdout.contains("Deleted: sha256:"));
    daemon.clean();
}

#[test]
fn attach_and_logs_follow_end_with_the_container() {
    let (daemon, image) = ready();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "loop",
            &image,
            "sh",
            "-c",
            "while :; do echo tick; sleep 0.05; done",
        ])
        .ok();
    let mut attach = daemon.docker_command(&["attach", "--no-stdin", "loop"]);
    let mut attach = attach.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut follow = daemon.docker_command(&["logs", "-f", "loop"]);
    let mut follow = follow.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("it ticks", || daemon.docker(&["logs", "loop"]).stdout.contains("tick").then_some(()));
    daemon.docker(&["kill", "loop"]).ok();
    assert_eq!(wait(&mut follow, "docker logs -f", DEADLINE), 0);
    wait(&mut attach, "docker attach", DEADLINE);
    daemon.docker(&["rm", "loop"]).ok();
}

#[test]
fn docker_py_works() {
    let (daemon, image) = ready();
    let python = tests::cache().join("venv/bin/python");
    assert!(python.exists(), "docker-py is missing: scripts/test installs it");
    let script = r#"
import docker, sys
client = docker.from_env()
image = sys.argv[1]
assert client.ping()
assert client.version()["ApiVersion"] == "1.53"
assert client.containers.run(image, "echo hello", remove=True) == b"hello\n"
c = client.containers.run(image, ["sh", "-c", "echo out; echo err >&2; sleep 1000"], detach=True, name="py", labels={"a": "b"})
assert c in client.containers.list(filters={"label": "a=b"})
for line in c.logs(stream=True, stdout=True, stderr=False):
    assert line == b"out\n", line
    break
code, output = c.exec_run(["sh", "-c", "echo in; exit 3"])
assert (code, output) == (3, b"in\n"), (code, output)
code, (out, err) = c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
assert (out, err) == (b"o\n", b"e\n")
c.stop(timeout=0)
c.reload()
assert c.status == "exited", c.status
assert c.wait()["StatusCode"] == 137
c.remove()
try:
    client.containers.get("py")
    raise SystemExit("still there")
except docker.errors.NotFound:
    pass
try:
    client.containers.run(image, "nope")
    raise SystemExit("ran")
except docker.errors.APIError as error:
    assert "executable file not found" in str(error), error
i = client.images.get(image)
assert i.tags == [image], i.tags
assert i.tag("copy", "1")
client.images.remove("copy:1")
print("done")
"#;
    let mut python = tests::process::command(python, ["-c", script, &image]);
    python.env("DOCKER_HOST", daemon.host()).env("HOME", daemon.dir());
    assert_eq!(tests::process::run(python).ok().text(), "done");
}
