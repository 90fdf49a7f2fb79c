//! A daemon to be asked, and a client that knows nothing but sockets.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod openapi;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tintype::import::Precision;

use crate::fixture;

/// A folder with a model, a state and a socket.
pub struct Place {
    pub folder: tempfile::TempDir,
}

/// A running daemon; it is killed when this is dropped.
pub struct Daemon {
    pub child: Child,
    socket: PathBuf,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        fixture::tiny(&folder.path().join("models"), Precision::Int8);
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, to be run with this place's socket, models and state.
    pub fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tintype"));
        command.arg("serve").args(more);
        for default in
            [["--threads", "1"], ["--socket", "socket"], ["--models", "models"], ["--state", "state"]]
        {
            if !more.contains(&default[0]) {
                command.args(default);
            }
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command
    }

    /// Starts a daemon and waits until it answers.
    pub fn start(&self, more: &[&str]) -> Daemon {
        let child = self.command(more).spawn().unwrap();
        let daemon = Daemon { child, socket: self.path("socket") };
        let begun = Instant::now();
        while UnixStream::connect(&daemon.socket).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }
}

impl Daemon {
    /// Sends a request as it is, and reads until the daemon closes the connection.
    pub fn send(&self, request: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(request).unwrap();
        read(&mut stream)
    }

    /// A request with a body, if it is not empty.
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.send(request(method, path, headers, body).as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    /// Hands a job in; its id.
    pub fn submit(&self, body: &Value) -> String {
        let answer = self.ask("POST", "/v1/jobs", "", &body.to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).json()
    }

    /// All events of a job, when it has ended.
    pub fn events(&self, id: &str, from: u64) -> Vec<Value> {
        let answer = self.get(&format!("/v1/jobs/{id}/events?from={from}"));
        let lines = std::str::from_utf8(&answer.body).unwrap().lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a job's end; how it ended.
    pub fn end(&self, id: &str) -> Value {
        self.events(id, 0).pop().unwrap()
    }

    /// Waits until a job is in a state, or has come so far.
    pub fn wait(&self, id: &str, until: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let job = self.job(id);
            if until(&job) {
                return job;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{job}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// Ends the daemon at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the daemon to stop, and waits for it; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The code of an error.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let len = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{len}\r\n{body}")
}

/// Reads an answer until the connection ends.
pub fn read(stream: &mut UnixStream) -> Answer {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 65536]);
    // Where the daemon closes before it has read everything, the kernel says so behind the answer.
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..len]);
    }
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let split = split.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes[split + 4..].to_vec();
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { joined(&body) } else { body };
    Answer { status, head, body }
}

/// A chunked body in one piece; what follows a torn chunk is left out.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap().trim(), 16).unwrap();
        if len == 0 || chunks.len() < end + 2 + len + 2 {
            break;
        }
        body.extend_from_slice(&chunks[end + 2..][..len]);
        chunks = &chunks[end + 2 + len + 2..];
    }
    body
}

/// The records of a journal, read as docs/protocol.md describes the file.
pub fn journal(path: &Path) -> Vec<Value> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"TTJRNL\x00\x01");
    let (mut rest, mut records) = (&bytes[8..], Vec::new());
    while rest.len() >= 12 {
        let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        let Some(payload) = rest.get(12..12 + len) else { break };
        records.push(serde_json::from_slice(payload).unwrap());
        rest = &rest[12 + len..];
    }
    records
}
