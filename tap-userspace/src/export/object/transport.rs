//! The HTTP client under the object stores: hyper and rustls with ring, like the exporters'. Comes
//! in: `object_store`'s requests; goes out: its responses, and a note of the last one's status for
//! whoever made the attempt.

use std::{
    cell::Cell,
    future::Future,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::export::http::retry_after;

/// For one connection to a store, or to what gives its credentials.
const CONNECT: Duration = Duration::from_secs(5);

/// The type of objects.
pub const CONTENTS: &str = "application/json";

/// Header field of every request, by which tap knows its own uploads where the store is on this
/// host: an object of each upload would be one upload more, without end.
pub const MARK: &str = "x-tap-upload";

/// Its value: nobody else knows it, so that no other request passes for tap's.
pub fn mark() -> &'static (String, HeaderValue) {
    static VALUE: OnceLock<(String, HeaderValue)> = OnceLock::new();
    VALUE.get_or_init(|| {
        let mut random = [0; 16];
        // Without randomness it can be guessed, and works.
        getrandom::fill(&mut random).unwrap_or_default();
        let text = super::document::hex(&random);
        let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0"));
        (text, value)
    })
}

/// What the last response of an attempt said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status; none where there was no response.
    pub status: Option<u16>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
    /// The object is stored: what its request was answered with is a success.
    pub stored: bool,
    /// `error.type` of what kept the request from having a response.
    pub broke: Option<&'static str>,
}

tokio::task_local! {
    static LAST: Cell<Answer>;
}

impl Answer {
    /// What an attempt gave, and the last response that it got.
    pub async fn of<T>(attempt: impl Future<Output = T>) -> (T, Self) {
        LAST.scope(Cell::default(), async {
            let result = attempt.await;
            (result, LAST.with(Cell::get))
        })
        .await
    }

    fn note(self) {
        // Nobody asks outside of an attempt.
        let _ = LAST.try_with(|last| last.set(self));
    }
}

/// Makes clients.
#[derive(Clone, Debug)]
pub struct Transport(Client<HttpsConnector<HttpConnector>, HttpRequestBody>);

impl Transport {
    /// A client that trusts the system's roots (`SSL_CERT_FILE`); where all is in clear text, none
    /// are needed.
    pub fn new(clear: bool) -> io::Result<Self> {
        let builder = || {
            ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)
        };
        let tls = match builder()?.with_native_roots() {
            Ok(tls) => tls,
            Err(_) if clear => builder()?.with_root_certificates(RootCertStore::empty()),
            Err(error) => return Err(error),
        }
        .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self(client))
    }
}

impl object_store::client::HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        request.headers_mut().insert(MARK, mark().1.clone());
        // Not one for credentials.
        let of_object = request.method() == Method::PUT
            && request.headers().get(CONTENT_TYPE).is_some_and(|it| it == CONTENTS);
        // A response of before says nothing of this request.
        Answer::default().note();
        let response = self.0.request(request).await.map_err(|error| {
            let (kind, broke) = match error.is_connect() {
                true => (HttpErrorKind::Connect, "connect"),
                false => (HttpErrorKind::Interrupted, "broken"),
            };
            Answer { broke: Some(broke), ..Answer::default() }.note();
            HttpError::new(kind, error)
        })?;
        let (retry_after, status) = (retry_after(response.headers()), response.status());
        let stored = of_object && status.is_success();
        Answer { status: Some(status.as_u16()), retry_after, stored, broke: None }.note();
        let (parts, body) = response.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}
