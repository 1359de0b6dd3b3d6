//! Exports spans to a collector: OTLP over HTTP, as protobuf. No proxy, no redirect, no retry: spans that cannot be sent are lost, and the
//! log shows when that begins and ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message as _;
use tokio::runtime::Handle;
use url::Url;

use crate::http_client;

/// The collector's default path, unless the address has one.
const PATH: &str = "/v1/traces";
/// Time limit of one export.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The exporter.
#[derive(Debug)]
pub(super) struct Exporter {
    http: reqwest::Client,
    /// User and password in it are sent as basic authentication.
    url: Url,
    /// Runs the export, since the SDK's thread has no runtime.
    runtime: Handle,
    resource: ResourceAttributesWithSchema,
    fails: AtomicBool,
}

impl Exporter {
    /// An exporter on the current runtime.
    pub(super) fn new(endpoint: &Url) -> Result<Self, reqwest::Error> {
        let mut url = endpoint.clone();
        if url.path() == "/" {
            url.set_path(PATH);
        }
        Ok(Self {
            http: http_client::client_for([&url])
                .pool_max_idle_per_host(1)
                .build()?,
            url,
            runtime: Handle::current(),
            resource: ResourceAttributesWithSchema::default(),
            fails: AtomicBool::new(false),
        })
    }

    /// Logs one line when exports start to fail, and one when they recover; never with the address.
    fn report(&self, error: Option<&str>) {
        let failed_before = self.fails.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !failed_before => {
                tracing::warn!(error, "spans cannot be sent and are lost");
            }
            None if failed_before => tracing::info!("spans can be sent again"),
            _ => {}
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let document = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &self.resource),
        };
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(document.encode_to_vec());
        let sending = async { tokio::time::timeout(TIMEOUT, request.send()).await };
        let error = match self.runtime.spawn(sending).await {
            Ok(Ok(Ok(answer))) if answer.status().is_success() => None,
            Ok(Ok(Ok(answer))) => Some(format!("status {}", answer.status().as_u16())),
            Ok(Ok(Err(error))) if error.is_connect() => Some("no connection".to_owned()),
            Ok(Ok(Err(_))) => Some("no whole answer".to_owned()),
            Ok(Err(_)) => Some("no answer in time".to_owned()),
            Err(_) => Some("the process is ending".to_owned()),
        };
        self.report(error.as_deref());
        error.map_or(Ok(()), |error| Err(OTelSdkError::InternalFailure(error)))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
