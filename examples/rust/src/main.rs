//! A service guarded by tokend, with gRPC and HTTP on one port. What each call requires is set
//! where it is routed; handlers find the verified token in the request.

use std::env;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Path};
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Extension, Router};
use tokend_client::{Connection, Guard, LocalConfig, VerifiedToken, Verifier};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use proto::report_service_server::{ReportService, ReportServiceServer};
use proto::{
    ArchiveReportRequest, ArchiveReportResponse, DeleteReportRequest, DeleteReportResponse, GetReportRequest,
    GetReportResponse,
};

#[expect(clippy::pedantic, unreachable_pub, reason = "generated")]
mod proto {
    tonic::include_proto!("reports.v1");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("TOKEND_ADDRESS")?;
    // Read again when tokend refuses it: the token may be rotated while this runs.
    let client = Connection::to(address).secret_file(env::var("TOKEND_SECRET_FILE")?).open()?;
    // Locally, a revocation may go unnoticed for the declared staleness. Otherwise it is effective
    // as soon as tokend says so.
    let verifier = match env::var("REPORTS_STALENESS_MS") {
        Ok(text) => {
            let staleness = std::time::Duration::from_millis(text.parse()?);
            Verifier::local(client, LocalConfig::default().staleness(staleness))?
        }
        Err(_) => Verifier::multiplexed(client)?,
    };

    let listener = TcpListener::bind(env::var("REPORTS_LISTEN")?).await?;
    let service = routes(verifier)?.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

fn routes(verifier: Verifier) -> Result<Router, Box<dyn Error>> {
    let guard = Guard::new(verifier).client_address(client_address);
    let grpc = guard
        .clone()
        .require_at("/reports.v1.ReportService/GetReport", ["reports:read"])?
        .require_at("/reports.v1.ReportService/DeleteReport", ["reports:write"])?
        .closed_elsewhere();
    let reports = Routes::new(ReportServiceServer::new(Reports)).into_axum_router().layer(grpc);
    let read = get(read_report).layer(guard.require(["reports:read"])?);
    Ok(Router::new().route("/reports/{id}", read).route("/health", get(async || "well")).merge(reports))
}

/// Returns the client's address; behind a proxy it would be the proxy's.
fn client_address(request: &Parts) -> Option<IpAddr> {
    request.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}

async fn read_report(Path(id): Path<String>, Extension(token): Extension<VerifiedToken>) -> String {
    format!("report {id} for {}", token.user_id.as_str())
}

struct Reports;

#[tonic::async_trait]
impl ReportService for Reports {
    async fn get_report(
        &self,
        request: Request<GetReportRequest>,
    ) -> Result<Response<GetReportResponse>, Status> {
        let token = request.extensions().get::<VerifiedToken>().cloned();
        let token = token.ok_or_else(|| Status::internal("the guard is missing"))?;
        Ok(Response::new(GetReportResponse {
            text: format!("report {}", request.into_inner().report_id),
            user_id: token.user_id.as_str().to_owned(),
            organization_id: token.organization_id.as_str().to_owned(),
        }))
    }

    async fn delete_report(
        &self,
        _: Request<DeleteReportRequest>,
    ) -> Result<Response<DeleteReportResponse>, Status> {
        Ok(Response::new(DeleteReportResponse {}))
    }

    async fn archive_report(
        &self,
        _: Request<ArchiveReportRequest>,
    ) -> Result<Response<ArchiveReportResponse>, Status> {
        Ok(Response::new(ArchiveReportResponse {}))
    }
}
