package cluster

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/embeddedpg"
	"wagate/internal/simulator"
)

func quantile(took []time.Duration, p float64) float64 {
	if len(took) == 0 {
		return 0
	}
	return took[int(p*float64(len(took)-1))].Seconds()
}

// BenchmarkTakeOver kills one of two workers with kill -9 under load, ten times, with the settings of production, and prints how
// long the jobs that it had claimed waited until another worker, or a decision, had taken them over.
func BenchmarkTakeOver(b *testing.B) {
	const rounds = 10
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 100 * time.Millisecond, LatencyJitter: 100 * time.Millisecond})
		for i := range 6 {
			waba, phone := fmt.Sprint(100+i), fmt.Sprint(1001+i)
			c.phone(waba, phone, 76, 80)
			c.accept(phone, texts(rounds*1200))
		}
		running := []*worker{c.startWorker(), c.startWorker()}
		var took []time.Duration
		claimed := 0
		for range rounds {
			c.until(time.Minute, "both workers sending", func(ctx context.Context) (bool, string) {
				n := c.count(`SELECT count(DISTINCT attempted_by[array_upper(attempted_by, 1)]) FROM river_job WHERE kind = 'send' AND state = 'running'`)
				held := c.count(`SELECT count(*) FROM leases WHERE worker_id <> '' AND expires_at > clock_timestamp()`)
				return n == 2 && held == 6, fmt.Sprint(n, held)
			})
			victim := running[0]
			victim.kill()
			died := time.Now()
			rows, err := c.pool.Query(b.Context(), `
				SELECT id FROM river_job WHERE kind = 'send' AND state = 'running' AND attempted_by[array_upper(attempted_by, 1)] LIKE '%-' || $1::text || '-%'`,
				strconv.Itoa(victim.cmd.Process.Pid))
			if err != nil {
				b.Fatal(err)
			}
			jobs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			if err != nil {
				b.Fatal(err)
			}
			claimed += len(jobs)
			running = []*worker{running[1], c.startWorker()}
			c.until(2*time.Minute, "the jobs taken over", func(ctx context.Context) (bool, string) {
				var left int
				if err := c.pool.QueryRow(ctx, `SELECT count(*) FROM river_job WHERE id = ANY($1::bigint[]) AND state = 'running'`, jobs).Scan(&left); err != nil {
					return false, err.Error()
				}
				for len(took) < claimed-left {
					took = append(took, time.Since(died))
				}
				return left == 0, fmt.Sprint(left)
			})
		}
		slices.Sort(took)
		b.ReportMetric(float64(claimed), "jobs")
		b.ReportMetric(quantile(took, .5), "p50-s")
		b.ReportMetric(quantile(took, .99), "p99-s")
		b.ReportMetric(quantile(took, 1), "max-s")
		b.ReportMetric(float64(c.sim.Ledger().Totals.ExtraAccepts), "sent-twice")
	}
}

// BenchmarkSigterm sends SIGTERM to a worker under full load, five times, and prints how long it took to end and how many
// messages were unknown after it.
func BenchmarkSigterm(b *testing.B) {
	const rounds = 5
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 100 * time.Millisecond, LatencyJitter: 900 * time.Millisecond})
		for i := range 8 {
			waba, phone := fmt.Sprint(100+i), fmt.Sprint(1001+i)
			c.phone(waba, phone, 0, 0)
			c.accept(phone, texts(8000))
		}
		w := c.startWorker()
		var took []time.Duration
		for range rounds {
			sent := c.sim.Ledger().Totals.Accepted
			c.until(time.Minute, "full load", func(context.Context) (bool, string) {
				return c.sim.Ledger().Totals.Accepted > sent+1500, ""
			})
			next := c.startWorker()
			began := time.Now()
			if err := w.stop(); err != nil {
				b.Errorf("the worker ended with %v", err)
			}
			took = append(took, time.Since(began))
			w = next
		}
		slices.Sort(took)
		b.ReportMetric(quantile(took, 1), "longest-exit-s")
		b.ReportMetric(float64(c.count(`SELECT count(*) FROM messages WHERE unknown_at IS NOT NULL`)), "unknown")
		b.ReportMetric(float64(c.sim.Ledger().Totals.ExtraAccepts), "sent-twice")
		if err := w.stop(); err != nil {
			b.Errorf("the last worker ended with %v", err)
		}
	}
}

// BenchmarkPostgresAway takes Postgres away for 30 s under load and prints what callers see meanwhile, what it costs the
// gateway and a worker, and how soon both are back.
func BenchmarkPostgresAway(b *testing.B) {
	const away, posters = 30 * time.Second, 64
	for b.Loop() {
		pg, err := embeddedpg.Start(b.Context(), embeddedpg.Config{TempDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := pg.Stop(context.WithoutCancel(b.Context())); err != nil {
				b.Errorf("stopping Postgres: %v", err)
			}
		})
		if err := app.Migrate(b.Context(), config.Config{DatabaseURL: config.NewSecret(pg.DSN())}, slog.New(slog.DiscardHandler)); err != nil {
			b.Fatal(err)
		}
		c := newClusterOn(b, pg.DSN(), simulator.Config{Latency: 100 * time.Millisecond, LatencyJitter: 200 * time.Millisecond})
		c.phone("100", "101", 300, 0)
		c.phone("200", "201", 300, 0)
		gateway, url := c.startGateway()
		health := freeAddress(b)
		c.startWorker("WAGATE_WORKER_LISTEN=" + health)

		var mu sync.Mutex
		var refused []time.Duration
		var accepted, wrong atomic.Int64
		var back atomic.Int64 // when the first message was accepted after Postgres was back
		ctx, stop := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
		ids := make(chan string, 1<<20)
		for i := range posters {
			wg.Go(func() {
				tick := time.NewTicker(200 * time.Millisecond)
				defer tick.Stop()
				for n := 0; ctx.Err() == nil; n++ {
					began := time.Now()
					phone := []string{"101", "201"}[n%2]
					code, id, err := post(ctx, client, url, c.key, phone, fmt.Sprintf("+1202%04d%04d100", i, n), "")
					switch {
					case code == http.StatusAccepted:
						accepted.Add(1)
						back.CompareAndSwap(0, time.Now().UnixNano())
						ids <- id
					case code == http.StatusServiceUnavailable:
						mu.Lock()
						refused = append(refused, time.Since(began))
						mu.Unlock()
					case ctx.Err() == nil || err == nil:
						wrong.Add(1)
					}
					select {
					case <-tick.C:
					case <-ctx.Done():
					}
				}
			})
		}
		c.until(time.Minute, "a steady load", func(context.Context) (bool, string) { return accepted.Load() > 2000, "" })
		before, workerBefore := scrape(b, url, c.key), scrape(b, "http://"+health, "")
		if err := pg.Kill(); err != nil {
			b.Fatal(err)
		}
		peak, workerPeak := before, workerBefore
		sample := time.NewTicker(500 * time.Millisecond)
		for end := time.Now().Add(away); time.Now().Before(end); <-sample.C {
			peak, workerPeak = peak.most(scrape(b, url, c.key)), workerPeak.most(scrape(b, "http://"+health, ""))
		}
		sample.Stop()
		back.Store(0)
		if err := pg.Restart(b.Context()); err != nil {
			b.Fatal(err)
		}
		up := time.Now()
		c.until(time.Minute, "accepting again", func(context.Context) (bool, string) { return back.Load() != 0, "" })
		sentBefore := c.sim.Ledger().Totals.Accepted
		c.until(time.Minute, "sending again", func(context.Context) (bool, string) { return c.sim.Ledger().Totals.Accepted > sentBefore+100, "" })
		sending := time.Since(up)
		stop()
		wg.Wait()
		close(ids)
		c.until(3*time.Minute, "every message settled", func(ctx context.Context) (bool, string) {
			s := c.statuses(ctx)
			return s["queued"]+s["sending"]+s["accepted"]+s["sent"] == 0 && len(s) > 0 && c.sim.Ledger().Totals.StatusesPending == 0, fmt.Sprint(s)
		})
		lost := 0
		for id := range ids {
			var found bool
			if err := c.pool.QueryRow(b.Context(), `SELECT EXISTS (SELECT FROM messages WHERE id = $1::uuid)`, id).Scan(&found); err != nil {
				b.Fatal(err)
			}
			if !found {
				lost++
			}
		}
		after, workerAfter := scrape(b, url, c.key), scrape(b, "http://"+health, "")
		slices.Sort(refused)
		b.ReportMetric(float64(len(refused)), "503s")
		b.ReportMetric(1000*quantile(refused, .5), "503-p50-ms")
		b.ReportMetric(1000*quantile(refused, .99), "503-p99-ms")
		b.ReportMetric(1000*quantile(refused, 1), "503-max-ms")
		b.ReportMetric(float64(wrong.Load()), "other-answers")
		b.ReportMetric(time.Unix(0, back.Load()).Sub(up).Seconds(), "accepting-again-s")
		b.ReportMetric(sending.Seconds(), "sending-again-s")
		b.ReportMetric(float64(lost), "lost")
		b.ReportMetric(float64(c.statuses(b.Context())["unknown"]), "unknown")
		b.ReportMetric(float64(c.sim.Ledger().Totals.ExtraAccepts), "sent-twice")
		b.Logf("gateway: goroutines %d, at most %d, then %d; memory %d, at most %d, then %d MB", before.goroutines, peak.goroutines, after.goroutines, before.mb, peak.mb, after.mb)
		b.Logf("worker: goroutines %d, at most %d, then %d; memory %d, at most %d, then %d MB",
			workerBefore.goroutines, workerPeak.goroutines, workerAfter.goroutines, workerBefore.mb, workerPeak.mb, workerAfter.mb)
		gateway.kill()
	}
}

// footprint is what a process says of itself.
type footprint struct{ goroutines, mb int }

func (f footprint) most(g footprint) footprint {
	return footprint{max(f.goroutines, g.goroutines), max(f.mb, g.mb)}
}

func scrape(b *testing.B, url, key string) (f footprint) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_goroutines":
			f.goroutines = int(v)
		case "process_resident_memory_bytes":
			f.mb = int(v) >> 20
		}
	}
	return f
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
