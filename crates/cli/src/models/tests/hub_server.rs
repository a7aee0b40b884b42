//! The Hub, played by a server on this machine.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::models::{
    ModelError,
    cache::Cache,
    hub::{Hub, HubFile},
};

const FILE: &[u8] = b"GGUF and so on";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves `FILE` at `/org/repo/resolve/main/sub/model.gguf` under the etag given, and counts requests.
struct Server {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start(etag: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                answer(stream.unwrap(), &etag);
            }
        });
        Self { endpoint, requests }
    }

    fn hub(&self) -> Hub {
        Hub { endpoint: self.endpoint.clone(), token: Some("secret".to_owned()) }
    }
}

fn answer(mut stream: TcpStream, etag: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let reply = if !headers.contains(&"authorization: bearer secret".to_owned()) {
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    } else if !request.starts_with("GET /org/repo/resolve/main/sub/model.gguf ") {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    } else {
        let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or("0-");
        let (first, last) = range.split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let last: usize = last.parse().unwrap_or(FILE.len() - 1);
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\
             ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
            last + 1 - first,
            FILE.len()
        );
        [head.as_bytes(), &FILE[first..=last]].concat()
    };
    stream.write_all(&reply).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_is_fetched_once_and_then_needs_no_network() {
    let folder = TempDir::new().unwrap();
    let cache = Cache::new(folder.path().to_owned());
    let file = HubFile::parse("hf:org/repo/sub/model.gguf").unwrap();
    let server = Server::start(sha256(FILE));
    let path = server.hub().fetch(&file, &cache).unwrap();
    assert_eq!(fs::read(&path).unwrap(), FILE);
    assert!(path.starts_with(folder.path()));
    let before = server.requests.load(Ordering::SeqCst);
    assert!(before > 0);
    assert_eq!(server.hub().fetch(&file, &cache).unwrap(), path);
    let nowhere = Hub { endpoint: "http://127.0.0.1:1".to_owned(), token: None };
    assert_eq!(nowhere.fetch(&file, &cache).unwrap(), path);
    assert_eq!(server.requests.load(Ordering::SeqCst), before);
}

#[test]
fn wrong_bytes_are_not_kept() {
    let folder = TempDir::new().unwrap();
    let cache = Cache::new(folder.path().to_owned());
    let file = HubFile::parse("hf:org/repo/sub/model.gguf").unwrap();
    let server = Server::start(sha256(b"something else"));
    for _ in 0..2 {
        let error = server.hub().fetch(&file, &cache).unwrap_err();
        assert!(matches!(error, ModelError::WrongBytes { .. }), "{error}");
    }
}

#[test]
fn what_the_hub_refuses_is_one_line_with_a_hint() {
    let folder = TempDir::new().unwrap();
    let cache = Cache::new(folder.path().to_owned());
    let server = Server::start(sha256(FILE));
    let absent = HubFile::parse("hf:org/repo/other.gguf").unwrap();
    let message = server.hub().fetch(&absent, &cache).unwrap_err().to_string();
    assert!(message.starts_with("fetch hf:org/repo/other.gguf: ") && message.contains("404"), "{message}");
    let stranger = Hub { token: None, ..server.hub() };
    let message = stranger.fetch(&absent, &cache).unwrap_err().to_string();
    assert!(message.contains("401") && message.contains("HF_TOKEN"), "{message}");
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn names_have_three_parts_and_stay_in_the_cache() {
    assert!(HubFile::parse("hf:org/repo/a/b-c_d.Q4_K_M.gguf").is_ok());
    for bad in [
        "hf:",
        "hf:a",
        "hf:a/b",
        "hf:a/b/",
        "hf://b/c",
        "hf:a/b/../c",
        "hf:../b/c",
        "hf:a/b/c\\d",
        "hf:a/b/c\n",
        "a/b/c",
    ] {
        let message = HubFile::parse(bad).expect_err(bad).to_string();
        assert!(message.ends_with("needed hf:ORG/REPO/FILE"), "{message}");
    }
}
