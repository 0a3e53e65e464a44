//go:build !unix

package embeddedpg

import (
	"context"
	"errors"
	"log/slog"
)

// Config as on Unix systems.
type Config struct {
	DataDir  string
	TempDir  string
	Logger   *slog.Logger
	Settings map[string]string
}

// Server cannot be had on this system.
type Server struct{}

var errSystem = errors.New("embedded Postgres needs a Unix system: set DATABASE_URL to a running server")

// Start always fails on this system.
func Start(context.Context, Config) (*Server, error) { return nil, errSystem }

// Sweep does nothing on this system.
func Sweep(string) {}

// DSN gives nothing on this system.
func (*Server) DSN() string { return "" }

// DataDir gives nothing on this system.
func (*Server) DataDir() string { return "" }

// Stop does nothing on this system.
func (*Server) Stop(context.Context) error { return nil }

// Kill always fails on this system.
func (*Server) Kill() error { return errSystem }

// Restart always fails on this system.
func (*Server) Restart(context.Context) error { return errSystem }
