//! What the cloud says of this machine, asked of its metadata service, and only where the
//! configuration names the cloud (`resource.detectors`). Comes in: the detectors; goes out:
//! attributes of the [`Resource`]. Names are the conventions' (`cloud.*`, `host.*`).
//!
//! Answers are bounded in size and time, and a service that does not answer leaves its attributes
//! out.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::resource::Resource;
use crate::config::file::{Detector, Detectors};

/// Where all three clouds have it.
const SERVICE: &str = "http://169.254.169.254";

/// Longest answer; those of EC2 and Azure have some 2 kB.
const LONGEST: usize = 256 << 10;

/// Longest value that is believed.
const VALUE_MAX: usize = 256;

/// One attribute: its name, and the value or nothing.
type Found = Vec<(&'static str, Option<String>)>;

/// Asks every detector and sets what it knows.
pub async fn detect(detectors: &Detectors, resource: &mut Resource) {
    for detector in &detectors.detectors {
        let service = Service::of(*detector);
        let found = tokio::time::timeout(detectors.timeout, service.ask(*detector)).await;
        let found = found.unwrap_or_else(|_| Err(format!("no answer in {:?}", detectors.timeout)));
        match found {
            Ok(found) => set(resource, found),
            Err(cause) => {
                let (detector, service) = (detector.name(), &service.url);
                let remedy = "take it out of resource.detectors where this is no such machine";
                tracing::warn!(detector, service, cause, remedy, "No cloud metadata.");
            }
        }
    }
}

fn set(resource: &mut Resource, found: Found) {
    for (key, value) in found {
        resource.set(key, value.filter(|value| value.len() <= VALUE_MAX).unwrap_or_default());
    }
}

/// A metadata service.
struct Service {
    url: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Service {
    /// Where the clouds' own tools look for it.
    fn of(detector: Detector) -> Self {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let url = match detector {
            Detector::Ec2 => set("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
            Detector::Gcp => set("GCE_METADATA_HOST").map(|host| format!("http://{host}")),
            Detector::Azure => None,
        };
        Self::at(url.as_deref().unwrap_or(SERVICE))
    }

    fn at(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { url: url.trim_end_matches('/').to_owned(), client }
    }

    async fn ask(&self, detector: Detector) -> Result<Found, String> {
        match detector {
            Detector::Ec2 => self.ec2().await,
            Detector::Gcp => self.gcp().await,
            Detector::Azure => self.azure().await,
        }
    }

    /// Version 2 of EC2's service: a token, then the instance's identity.
    async fn ec2(&self) -> Result<Found, String> {
        const TTL: (&str, &str) = ("x-aws-ec2-metadata-token-ttl-seconds", "60");
        const TOKEN: &str = "x-aws-ec2-metadata-token";
        let token = self.get(Method::PUT, "/latest/api/token", TTL).await?;
        let token = String::from_utf8_lossy(&token).into_owned();
        let path = "/latest/dynamic/instance-identity/document";
        let it = json(&self.get(Method::GET, path, (TOKEN, token.trim())).await?)?;
        Ok(vec![
            ("cloud.provider", Some("aws".into())),
            ("cloud.platform", Some("aws_ec2".into())),
            ("cloud.region", text(&it["region"])),
            ("cloud.availability_zone", text(&it["availabilityZone"])),
            ("cloud.account.id", text(&it["accountId"])),
            ("host.id", text(&it["instanceId"])),
            ("host.type", text(&it["instanceType"])),
            ("host.image.id", text(&it["imageId"])),
        ])
    }

    async fn gcp(&self) -> Result<Found, String> {
        const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
        let path = "/computeMetadata/v1/project/project-id";
        let project = self.get(Method::GET, path, FLAVOR).await?;
        let path = "/computeMetadata/v1/instance/?recursive=true";
        let it = json(&self.get(Method::GET, path, FLAVOR).await?)?;
        // `projects/42/zones/europe-west1-b`.
        let last = |value: &Value| Some(text(value)?.rsplit('/').next()?.to_owned());
        let zone = last(&it["zone"]);
        let region = zone.as_deref().and_then(|zone| Some(zone.rsplit_once('-')?.0.to_owned()));
        Ok(vec![
            ("cloud.provider", Some("gcp".into())),
            ("cloud.platform", Some("gcp_compute_engine".into())),
            ("cloud.region", region),
            ("cloud.availability_zone", zone),
            ("cloud.account.id", Some(String::from_utf8_lossy(&project).trim().to_owned())),
            ("host.id", it["id"].as_u64().map(|id| id.to_string())),
            ("host.name", text(&it["name"])),
            ("host.type", last(&it["machineType"])),
        ])
    }

    async fn azure(&self) -> Result<Found, String> {
        let path = "/metadata/instance/compute?api-version=2021-12-13&format=json";
        let it = json(&self.get(Method::GET, path, ("metadata", "true")).await?)?;
        Ok(vec![
            ("cloud.provider", Some("azure".into())),
            ("cloud.platform", Some("azure.vm".into())),
            ("cloud.region", text(&it["location"])),
            ("cloud.availability_zone", text(&it["zone"])),
            ("cloud.account.id", text(&it["subscriptionId"])),
            ("host.id", text(&it["vmId"])),
            ("host.name", text(&it["name"])),
            ("host.type", text(&it["vmSize"])),
        ])
    }

    async fn get(
        &self,
        method: Method,
        path: &str,
        (name, value): (&str, &str),
    ) -> Result<Bytes, String> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header(name, value).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| crate::export::transport::chain(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(format!("{path}: HTTP status {status}"));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| format!("{path}: {error}"))
    }
}

fn json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::{
        Router,
        http::HeaderMap,
        routing::{get, put},
    };

    use super::*;

    /// As the clouds' documentation shows the answers; without their header they refuse.
    async fn service() -> Service {
        let wants = |name: &'static str, value: &'static str, body: &'static str| {
            get(move |headers: HeaderMap| async move {
                match headers.get(name).is_some_and(|it| it == value) {
                    true => Ok(body),
                    false => Err(StatusCode::UNAUTHORIZED),
                }
            })
        };
        let router = Router::new()
            .route("/latest/api/token", put(|| async { "secret-token" }))
            .route(
                "/latest/dynamic/instance-identity/document",
                wants(
                    "x-aws-ec2-metadata-token",
                    "secret-token",
                    r#"{"accountId":"123456789012","architecture":"x86_64","availabilityZone":
                    "us-west-2b","imageId":"ami-5fb8c835","instanceId":"i-1234567890abcdef0",
                    "instanceType":"t2.micro","kernelId":null,"region":"us-west-2"}"#,
                ),
            )
            .route(
                "/computeMetadata/v1/project/project-id",
                wants("metadata-flavor", "Google", "shop-1\n"),
            )
            .route(
                "/computeMetadata/v1/instance/",
                wants(
                    "metadata-flavor",
                    "Google",
                    r#"{"id":4520031799277581759,"name":"web","machineType":
                    "projects/42/machineTypes/n1-standard-1","zone":"projects/42/zones/europe-west1-b"}"#,
                ),
            )
            .route(
                "/metadata/instance/compute",
                wants(
                    "metadata",
                    "true",
                    r#"{"location":"westeurope","name":"vm1","subscriptionId":"8d10da13","vmId":
                    "02aab8a4","vmSize":"Standard_D2s_v3","zone":"","zones":[7]}"#,
                ),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        Service::at(&url)
    }

    #[tokio::test]
    async fn each_cloud_is_asked_in_its_way() {
        let service = service().await;
        let rows: [(Detector, &[(&str, &str)]); 3] = [
            (
                Detector::Ec2,
                &[
                    ("cloud.account.id", "123456789012"),
                    ("cloud.availability_zone", "us-west-2b"),
                    ("cloud.platform", "aws_ec2"),
                    ("cloud.provider", "aws"),
                    ("cloud.region", "us-west-2"),
                    ("host.id", "i-1234567890abcdef0"),
                    ("host.image.id", "ami-5fb8c835"),
                    ("host.name", "machine"),
                    ("host.type", "t2.micro"),
                ],
            ),
            (
                Detector::Gcp,
                &[
                    ("cloud.account.id", "shop-1"),
                    ("cloud.availability_zone", "europe-west1-b"),
                    ("cloud.platform", "gcp_compute_engine"),
                    ("cloud.provider", "gcp"),
                    ("cloud.region", "europe-west1"),
                    ("host.id", "4520031799277581759"),
                    ("host.name", "web"),
                    ("host.type", "n1-standard-1"),
                ],
            ),
            (
                Detector::Azure,
                &[
                    ("cloud.account.id", "8d10da13"),
                    ("cloud.platform", "azure.vm"),
                    ("cloud.provider", "azure"),
                    ("cloud.region", "westeurope"),
                    ("host.id", "02aab8a4"),
                    ("host.name", "vm1"),
                    ("host.type", "Standard_D2s_v3"),
                ],
            ),
        ];
        for (detector, wanted) in rows {
            let mut resource = Resource::default();
            resource.set("host.name", "machine".into());
            set(&mut resource, service.ask(detector).await.unwrap());
            let found: BTreeMap<&str, &str> =
                resource.attributes().iter().map(|(key, value)| (&**key, &**value)).collect();
            assert_eq!(found, wanted.iter().copied().collect(), "{detector:?}");
        }
    }

    #[tokio::test]
    async fn a_machine_without_such_a_service_goes_on() {
        let nobody = Service::at("http://127.0.0.1:9");
        assert!(nobody.ask(Detector::Ec2).await.unwrap_err().contains("onnect"));
        let other = Service::at(&format!("{}/elsewhere", service().await.url));
        assert!(other.ask(Detector::Azure).await.unwrap_err().contains("404"));
    }
}
