package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
	"wagate/internal/simulator"
)

// account sets a WABA and its phone numbers up with limits of the gateway's; the simulator's are set apart.
type account struct {
	waba           string
	wabaRate       float64 // messages a second; 0: none
	perHour        float64
	phones         []string
	phoneRate      float64
	pair           map[string]any
	simPhone       int // the simulator's limit a second; 0: none
	simWABA        int
	simWABAWindow  time.Duration
	portfolio      string
	phoneRateByIdx func(i int) float64
}

func (c *cluster) account(a account) {
	c.t.Helper()
	body := map[string]any{"name": a.waba, "app_id": "300", "access_token": "token"}
	if a.wabaRate > 0 {
		body["messages_per_second"] = a.wabaRate
	}
	if a.perHour > 0 {
		body["messages_per_hour"] = a.perHour
	}
	if a.portfolio != "" {
		body["portfolio_id"] = a.portfolio
	}
	c.call(http.MethodPut, "/v1/wabas/"+a.waba, body, nil)
	for i, phone := range a.phones {
		rate := a.phoneRate
		if a.phoneRateByIdx != nil {
			rate = a.phoneRateByIdx(i)
		}
		body := map[string]any{"waba_id": a.waba, "display_phone_number": "+1 202-555-0100", "messages_per_second": nil}
		if rate > 0 {
			body["messages_per_second"] = rate
		}
		if a.pair != nil {
			body["pair"] = a.pair
		}
		c.call(http.MethodPut, "/v1/phone-numbers/"+phone, body, nil)
		c.sim.SetPhone(phone, simulator.PhoneConfig{WABAID: a.waba, AppID: "300", PerSecond: unlimited(a.simPhone)})
	}
	if a.simWABA > 0 {
		if err := c.sim.SetLimits("waba", a.waba, simulator.Limit{Max: a.simWABA, Window: a.simWABAWindow}); err != nil {
			c.t.Fatal(err)
		}
	}
}

func unlimited(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// fill puts a backlog of n text messages into a lane, past the API, as fast as Postgres takes them.
func (c *cluster) fill(waba, phone string, n, priority int) {
	c.t.Helper()
	const chunk = 50_000
	for made := 0; made < n; made += chunk {
		k := min(chunk, n-made)
		ids := make([]uuid.UUID, k)
		now := time.Now()
		for i := range ids {
			ids[i] = message.NewID(now)
		}
		_, err := c.pool.Exec(c.t.Context(), `
			WITH u AS (
				SELECT u.id, u.n FROM unnest($1::uuid[]) WITH ORDINALITY AS u(id, n)
			), made AS (
				INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, on_unknown, body, created_at)
				SELECT u.id, $2::text, $3::text, '+1202' || lpad((u.n + $4::bigint)::text, 7, '0') || '0100', 'text', $5::smallint, 'hold',
				       convert_to('{"to":"+1202' || lpad((u.n + $4::bigint)::text, 7, '0') || '0100","type":"text","text":{"body":"hello"}}', 'UTF8'), now()
				FROM u
			)
			INSERT INTO river_job (args, kind, max_attempts, priority, queue, state)
			SELECT jsonb_build_object('id', u.id), 'send', 1000, $5::smallint, 'lane-' || $2::text, 'available' FROM u ORDER BY u.n`,
			ids, phone, waba, made, priority)
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// arrivals gives when the simulator accepted, since an instant, by phone number.
func arrivals(accepts []simulator.Accept, from, to time.Time) map[string][]time.Duration {
	all := map[string][]time.Duration{}
	for _, a := range accepts {
		at := time.Unix(0, a.ArrivalUnixNS)
		if !at.Before(from) && at.Before(to) {
			all[a.Phone] = append(all[a.Phone], at.Sub(from))
		}
	}
	return all
}

// trickle posts from a phone number at a steady pace and gives how long each message took from the POST to the Cloud API.
func (c *cluster) trickle(phone string, n int, every time.Duration, gateway map[string]any) []time.Duration {
	c.t.Helper()
	posted := map[string]time.Time{}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		at := time.Now()
		var answer struct {
			ID string `json:"id"`
		}
		body := map[string]any{"from": phone, "to": fmt.Sprintf("+4420%06d0100", i), "type": "text", "text": map[string]any{"body": "hi"}}
		if gateway != nil {
			body["gateway"] = gateway
		}
		c.call(http.MethodPost, "/v1/messages", body, &answer)
		posted[answer.ID] = at
	}
	var took []time.Duration
	c.until(time.Minute, "the trickle", func(context.Context) (bool, string) {
		took = took[:0]
		for _, a := range c.accepts() {
			if at, ok := posted[a.OurID]; ok {
				took = append(took, time.Duration(a.ArrivalUnixNS-at.UnixNano()))
			}
		}
		return len(took) == n, fmt.Sprint(len(took))
	})
	slices.Sort(took)
	return took
}

func milliseconds(took []time.Duration, p float64) float64 {
	return float64(took[int(p*float64(len(took)-1))].Microseconds()) / 1000
}

// cpu gives the processor time of a worker process and of every process of the Postgres server.
func (c *cluster) cpu(workers ...*worker) (work, database time.Duration) {
	c.t.Helper()
	for _, w := range workers {
		work += cpuOf(c.t, w.cmd.Process.Pid)
	}
	var backend int
	if err := c.pool.QueryRow(c.t.Context(), `SELECT pg_backend_pid()`).Scan(&backend); err != nil {
		c.t.Fatal(err)
	}
	_, parent := statOf(backend)
	if parent == 0 {
		return work, 0 // in a container: its processes are not ours to see
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		c.t.Fatal(err)
	}
	// Sessions that ended are counted with the postmaster's children.
	database += cpuOf(c.t, parent) + childrenOf(parent)
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if used, of := statOf(pid); of == parent {
				database += used
			}
		}
	}
	return work, database
}

// tick is the unit of /proc/<pid>/stat, a hundredth of a second on Linux.
const tick = 10 * time.Millisecond

func fieldsOf(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(raw), ") ")
	if !ok {
		return nil
	}
	return strings.Fields(rest)
}

func statOf(pid int) (used time.Duration, parent int) {
	f := fieldsOf(pid)
	if len(f) < 15 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(f[1])
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * tick, parent
}

func childrenOf(pid int) time.Duration {
	f := fieldsOf(pid)
	if len(f) < 15 {
		return 0
	}
	user, _ := strconv.Atoi(f[13])
	system, _ := strconv.Atoi(f[14])
	return time.Duration(user+system) * tick
}

func cpuOf(t testing.TB, pid int) time.Duration {
	used, _ := statOf(pid)
	if used == 0 && fieldsOf(pid) == nil {
		t.Logf("the processor time of process %d is not known", pid)
	}
	return used
}

// settle waits until autovacuum has nothing to do, for half a minute without any.
func (c *cluster) settle() {
	quiet := time.Now()
	c.until(10*time.Minute, "autovacuum to settle", func(ctx context.Context) (bool, string) {
		var running int
		if err := c.pool.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'`).Scan(&running); err != nil || running > 0 {
			quiet = time.Now()
		}
		return time.Since(quiet) > 30*time.Second, ""
	})
}

// load is the processor time that passes in a while.
func (c *cluster) load(d time.Duration, workers ...*worker) (work, database time.Duration) {
	w0, d0 := c.cpu(workers...)
	timer := time.NewTimer(d)
	<-timer.C
	w1, d1 := c.cpu(workers...)
	return w1 - w0, d1 - d0
}

// messagesTo gives the ids of the messages to one recipient.
func (c *cluster) messagesTo(to string) map[string]bool {
	c.t.Helper()
	rows, err := c.pool.Query(c.t.Context(), `SELECT id::text FROM messages WHERE recipient = $1::text`, to)
	if err != nil {
		c.t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		c.t.Fatal(err)
	}
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}
