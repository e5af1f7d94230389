// The report service of examples/proto, guarded by tokend.
//
// Environment: TOKEND_ADDRESS (http://host:port, or https://), TOKEND_SECRET_FILE (the secret of a token with
// `tokend:verify`) and REPORTS_LISTEN (host:port).
package main

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // Asks replicas whether they are healthy.
	"google.golang.org/grpc/keepalive"

	reportsv1 "tokend.example/reports/gen/reports/v1"
	tokendv1 "tokend.example/reports/gen/tokend/v1"
	"tokend.example/reports/guard"
)

var scopes = map[string][]string{
	"/reports.v1.ReportService/GetReport":    {"reports:read"},
	"/reports.v1.ReportService/DeleteReport": {"reports:write"},
}

type reports struct {
	reportsv1.UnimplementedReportServiceServer
}

func (reports) GetReport(ctx context.Context, request *reportsv1.GetReportRequest) (*reportsv1.GetReportResponse, error) {
	token := guard.Token(ctx)
	return &reportsv1.GetReportResponse{
		Text:           "report " + request.GetReportId(),
		UserId:         token.GetUserId(),
		OrganizationId: token.GetOrganizationId(),
	}, nil
}

func (reports) DeleteReport(context.Context, *reportsv1.DeleteReportRequest) (*reportsv1.DeleteReportResponse, error) {
	return &reportsv1.DeleteReportResponse{}, nil
}

func (reports) ArchiveReport(context.Context, *reportsv1.ArchiveReportRequest) (*reportsv1.ArchiveReportResponse, error) {
	return &reportsv1.ArchiveReportResponse{}, nil
}

// ours presents this service's own secret.
type ours struct {
	secret string
	secure bool
}

func (o ours) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + o.secret}, nil
}

func (o ours) RequireTransportSecurity() bool { return o.secure }

// serviceConfig is ../service-config.json: calls go round all replicas that are healthy. While none is, Verify waits for
// one, and while one cannot tell, it is asked again (before grpc-go 1.40 only with GRPC_GO_RETRY=on); both end with the
// call's own deadline.
const serviceConfig = `
{
  "loadBalancingConfig": [{ "round_robin": {} }],
  "healthCheckConfig": { "serviceName": "tokend.v1.TokenService" },
  "methodConfig": [
    {
      "name": [{ "service": "tokend.v1.TokenService", "method": "Verify" }],
      "waitForReady": true,
      "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    }
  ]
}
`

// channel has pings find a connection that has gone silent, and a lost one tried again within a second.
var channel = []grpc.DialOption{
	grpc.WithDefaultServiceConfig(serviceConfig),
	grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: 3 * time.Second,
	}),
}

func connect(address string) (*grpc.ClientConn, error) {
	text, err := os.ReadFile(os.Getenv("TOKEND_SECRET_FILE"))
	if err != nil {
		return nil, err
	}
	secure := strings.HasPrefix(address, "https://")
	transport := grpc.WithInsecure()
	if secure {
		transport = grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{}))
	}
	own := grpc.WithPerRPCCredentials(ours{strings.TrimSpace(string(text)), secure})
	_, target, _ := strings.Cut(address, "://")
	return grpc.Dial("dns:///"+target, append([]grpc.DialOption{transport, own}, channel...)...)
}

func main() {
	connection, err := connect(os.Getenv("TOKEND_ADDRESS"))
	if err != nil {
		log.Fatal(err)
	}
	guarded := guard.Guard{Tokend: tokendv1.NewTokenServiceClient(connection), Scopes: scopes}
	server := grpc.NewServer(grpc.UnaryInterceptor(guarded.Unary), grpc.StreamInterceptor(guarded.Stream))
	reportsv1.RegisterReportServiceServer(server, reports{})
	listener, err := net.Listen("tcp", os.Getenv("REPORTS_LISTEN"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}
