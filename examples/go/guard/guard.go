// Package guard lets into a gRPC service who tokend says may come in, and nobody else: what is not known, or
// not listed, is refused.
package guard

import (
	"context"
	"log"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	tokendv1 "tokend.example/reports/gen/tokend/v1"
)

// verifyTimeout is how long tokend may take: its own answers come from memory.
const verifyTimeout = 2 * time.Second

// Guard asks tokend on every call.
type Guard struct {
	// Tokend is asked with a secret of this service's own.
	Tokend tokendv1.TokenServiceClient
	// Scopes that each method needs, by its full name. Methods that are not here are closed.
	Scopes map[string][]string
}

type tokenKey struct{}

// Token returns whom a call was let in for.
func Token(ctx context.Context) *tokendv1.Token {
	token, _ := ctx.Value(tokenKey{}).(*tokendv1.Token)
	return token
}

// Unary guards calls with one request.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	token, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(context.WithValue(ctx, tokenKey{}, token), request)
}

// Stream guards streaming calls, when they begin.
func (g *Guard) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	token, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx := context.WithValue(stream.Context(), tokenKey{}, token)
	return handler(service, &admitted{stream, ctx})
}

type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a *admitted) Context() context.Context { return a.ctx }

func (g *Guard) admit(ctx context.Context, method string) (*tokendv1.Token, error) {
	scopes, listed := g.Scopes[method]
	if !listed {
		return nil, status.Error(codes.PermissionDenied, "this method is closed")
	}
	secret, err := bearer(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	answer, err := g.Tokend.Verify(ctx, &tokendv1.VerifyRequest{
		Secret:         secret,
		RequiredScopes: scopes,
		ClientIp:       clientIP(ctx),
	})
	if err != nil {
		// Ours to mend, not the caller's: it must not take its token for a bad one.
		log.Printf("tokend: %v", err)
		return nil, status.Error(codes.Unavailable, "the token cannot be verified now")
	}
	switch answer.GetVerdict() {
	case tokendv1.Verdict_VERDICT_VALID:
		return answer.GetToken(), nil
	case tokendv1.Verdict_VERDICT_MISSING_SCOPE, tokendv1.Verdict_VERDICT_IP_NOT_ALLOWED:
		return nil, status.Error(codes.PermissionDenied, "the token does not allow this")
	case tokendv1.Verdict_VERDICT_RATE_LIMITED, tokendv1.Verdict_VERDICT_CREDITS_EXHAUSTED:
		return nil, status.Error(codes.ResourceExhausted, "a limit of the token is used up")
	default:
		return nil, status.Error(codes.Unauthenticated, "the token is not accepted")
	}
}

// bearer finds the one secret that a call presents.
func bearer(ctx context.Context) (string, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	values := headers.Get("authorization")
	if len(values) == 1 {
		scheme, secret, found := strings.Cut(values[0], " ")
		if found && strings.EqualFold(scheme, "bearer") {
			return secret, nil
		}
	}
	return "", status.Error(codes.Unauthenticated, "one bearer token is needed")
}

// clientIP returns where a call comes from; behind a proxy that would be the proxy.
func clientIP(ctx context.Context) string {
	if from, known := peer.FromContext(ctx); known {
		if address, ok := from.Addr.(*net.TCPAddr); ok {
			return address.IP.String()
		}
	}
	return ""
}
