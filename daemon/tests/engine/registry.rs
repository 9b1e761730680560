//! A registry on loopback with one image that has no layers: enough for an engine's tests.

use sha2::{Digest, Sha256};
use storage::{PullRequest, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn digest(bytes: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","FROM=image"],
"Cmd":["sleep"],"Labels":{"from":"image"}},"rootfs":{"type":"layers","diff_ids":[]}}"#;

fn manifest() -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(CONFIG),
            "size": CONFIG.len(),
        },
        "layers": [],
    })
    .to_string()
}

async fn serve(mut client: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    loop {
        while !request.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut piece = [0; 4096];
            match client.read(&mut piece).await? {
                0 => return Ok(()),
                // TLS is asked for first, and is not to be had here.
                _ if request.is_empty() && piece[0] == 0x16 => return Ok(()),
                got => request.extend_from_slice(&piece[..got]),
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        request.clear();
        let path = text.split(' ').nth(1).unwrap_or_default();
        let manifest = manifest();
        let (status, kind, body) = match path {
            _ if path.contains("/manifests/") => {
                ("200 OK", "application/vnd.oci.image.manifest.v1+json", manifest.as_str())
            }
            _ if path.contains("/blobs/") => ("200 OK", "application/octet-stream", CONFIG),
            "/v2/" => ("200 OK", "application/json", "{}"),
            _ => ("404 Not Found", "application/json", "{}"),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\r\n",
            body.len(),
            digest(body),
        );
        client.write_all(head.as_bytes()).await?;
        if !text.starts_with("HEAD") {
            client.write_all(body.as_bytes()).await?;
        }
    }
}

/// Pulls the image and gives its name.
pub async fn pull_image(store: &Store) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client));
        }
    });
    let reference = format!("{address}/none:latest");
    let request =
        PullRequest { reference: reference.clone(), platform: None, credentials: Default::default() };
    let (progress, mut ignored) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move { while ignored.recv().await.is_some() {} });
    store.pull(request, progress).await.expect("a pull");
    server.abort();
    reference
}
