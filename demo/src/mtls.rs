//! A TLS 1.3 connection between two pods, both with the certificates in their volumes.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// An error of a step; it is only shown.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The result of one connection.
#[derive(Debug)]
pub(super) struct Conversation {
    /// The SPIFFE ID in the client's certificate, as the server saw it.
    pub client: String,
    /// The SPIFFE ID in the server's certificate, as the client saw it.
    pub server: String,
    /// The protocol version and cipher suite.
    pub protocol: String,
    /// The server's answer.
    pub answer: String,
}

/// Connects a client with the volume `client` to a server with the volume `server` and the DNS name `name`.
pub(super) async fn converse(client: &Path, server: &Path, name: &str) -> Result<Conversation, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(server)?));
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let peer = spiffe_id(stream.get_ref().1.peer_certificates());
        let mut greeting = [0_u8; 5];
        stream.read_exact(&mut greeting).await?;
        stream.write_all(format!("{} to you, {peer}", String::from_utf8_lossy(&greeting)).as_bytes()).await?;
        stream.shutdown().await?;
        Ok::<_, Failure>(peer)
    });
    let connector = TlsConnector::from(Arc::new(client_config(client)?));
    let mut stream =
        connector.connect(ServerName::try_from(name.to_owned())?, TcpStream::connect(address).await?).await?;
    let session = stream.get_ref().1;
    let server = spiffe_id(session.peer_certificates());
    let version = session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    let suite = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    stream.write_all(b"hello").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let client = serving.await??;
    Ok(Conversation { client, server, protocol: format!("{version} {}", suite.unwrap_or_default()), answer })
}

fn server_config(volume: &Path) -> Result<ServerConfig, Failure> {
    let (roots, chain, key) = read(volume)?;
    let verifier = WebPkiClientVerifier::builder(roots).build()?;
    Ok(ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?)
}

fn client_config(volume: &Path) -> Result<ClientConfig, Failure> {
    let (roots, chain, key) = read(volume)?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// The trust anchors, the chain and its private key in a volume.
type Files = (Arc<RootCertStore>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(volume: &Path) -> Result<Files, Failure> {
    let certificates =
        |name| CertificateDer::pem_file_iter(volume.join(name))?.collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for root in certificates("ca.crt")? {
        roots.add(root)?;
    }
    let key = PrivateKeyDer::from_pem_file(volume.join("tls.key"))?;
    Ok((Arc::new(roots), certificates("tls.crt")?, key))
}

/// The first URI name of the peer's leaf.
fn spiffe_id(chain: Option<&[CertificateDer<'_>]>) -> String {
    let uri = chain.and_then(<[_]>::first).and_then(|leaf| {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let names = leaf.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
    });
    uri.unwrap_or_else(|| "a peer without a SPIFFE ID".to_owned())
}
