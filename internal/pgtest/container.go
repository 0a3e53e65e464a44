package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	image         = "postgres:17"
	daemonTimeout = 5 * time.Second // to answer at all
	pullTimeout   = time.Minute
	runTimeout    = time.Minute
	removeTimeout = 20 * time.Second
	answerTimeout = 20 * time.Second // from ready to reached
	answerPause   = 50 * time.Millisecond
)

// container runs a PostgreSQL container, if the image is there or can be had.
func container() (*server, error) {
	quiet := log.New(io.Discard, "", 0)
	tclog.SetDefault(quiet)
	// Our own reaper needs no image and no network. The library reads its
	// settings once, at its first use.
	if os.Getenv("TESTCONTAINERS_RYUK_DISABLED") == "" {
		if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
			return nil, err
		}
	}
	if err := ensureImage(); err != nil {
		return nil, err
	}
	name := "wagate-pgtest-" + randomHex()
	stop, err := startReaper(reapContainer, name) // first, so that there is no moment without
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	pg, err := postgres.Run(ctx, image,
		testcontainers.WithName(name),
		testcontainers.WithLogger(quiet),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"),
		testcontainers.WithTmpfs(map[string]string{"/var/lib/postgresql/data": "rw"}),
		// Once when the image sets the server up, and once for good.
		testcontainers.WithWaitStrategy(wait.ForLog("database system is ready to accept connections").WithOccurrence(2)),
	)
	var dsn string
	if err == nil {
		dsn, err = reach(ctx, pg)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting a container: %w", err), stop())
	}
	return &server{admin: dsn, about: "a container of " + image, ours: true, stop: stop}, nil
}

// reach finds the address under which the server answers. The library's own
// guess is wrong where this process and the daemon share a container.
func reach(ctx context.Context, pg *postgres.PostgresContainer) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	guess, err := pg.ConnectionString(ctx, "sslmode=disable")
	if err != nil {
		return "", err
	}
	u, err := url.Parse(guess)
	if err != nil {
		return "", err
	}
	hosts := []string{u.Host, net.JoinHostPort("127.0.0.1", u.Port())}
	if ip, err := pg.ContainerIP(ctx); err == nil && ip != "" {
		hosts = append(hosts, net.JoinHostPort(ip, "5432"))
	}
	for {
		for _, host := range hosts {
			u.Host = host
			if err = answers(ctx, u.String()); err == nil {
				return u.String(), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the container's server answers on none of %v: %w", hosts, err)
		case <-time.After(answerPause):
		}
	}
}

func answers(ctx context.Context, dsn string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	closeConn(conn)
	return nil
}

// ensureImage returns nil when a daemon answers and has the image.
func ensureImage() error {
	ctx, cancel := context.WithTimeout(context.Background(), daemonTimeout)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return fmt.Errorf("looking for a Docker daemon: %w", err)
	}
	defer func() { _ = docker.Close() }() // it holds idle connections only
	if _, err := docker.Ping(ctx, client.PingOptions{}); err != nil {
		return errors.New("no Docker daemon answers")
	}
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return nil
	}
	say("pulling %s", image)
	ctx, cancel = context.WithTimeout(context.Background(), pullTimeout)
	defer cancel()
	pull, err := docker.ImagePull(ctx, image, client.ImagePullOptions{})
	if err != nil {
		return fmt.Errorf("pulling %s: %w", image, err)
	}
	if err := pull.Wait(ctx); err != nil {
		return fmt.Errorf("pulling %s: %w", image, err)
	}
	return nil
}

func removeContainer(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = docker.Close() }()
	_, err = docker.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	return err
}
