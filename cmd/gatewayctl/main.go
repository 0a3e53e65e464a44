// Command gatewayctl is for the operators of wagate: it asks the gateway's HTTP API, and nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"wagate/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := ctl.Run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
