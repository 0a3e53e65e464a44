package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"wagate/internal/message"
)

// load makes messages as a busy gateway has them: some phone numbers send most, templates of three categories, marketing in
// campaigns by day, the curve of a day, failures by Meta and by the gateway, what Meta bills.
type load struct {
	pool *pgxpool.Pool
	opt  options
	end  time.Time
	// phones are drawn by their weight.
	phones []phone
}

type phone struct {
	id, waba string
	weight   float64
}

var templates = map[string][]string{
	"authentication": {"otp_login", "otp_payment", "otp_device", "otp_signup"},
	"utility":        {"order_placed", "order_shipped", "order_out_for_delivery", "order_delivered", "invoice_ready", "appointment_reminder", "refund_made", "stock_alert"},
	"marketing":      {"spring_offer", "new_collection", "price_drop", "loyalty_points", "abandoned_cart"},
}

func newLoad(pool *pgxpool.Pool, opt options, end time.Time) *load {
	l := &load{pool: pool, opt: opt, end: end.UTC()}
	for i := range 10 {
		l.phones = append(l.phones, phone{id: fmt.Sprintf("2000000000000%02d", i), waba: fmt.Sprintf("1000000000000%02d", i/3), weight: 1 / float64(i+1)})
	}
	return l
}

// dayOf gives the start of a day, n days before the last one.
func (l *load) dayOf(n int) time.Time { return l.end.Truncate(24*time.Hour).AddDate(0, 0, -n) }

// fill puts everything in, a day at a time, two days at once. The triggers that log changes of old messages are off meanwhile:
// nothing of these days is rolled up yet.
func (l *load) fill(ctx context.Context, out io.Writer) error {
	var there bool
	if err := l.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM messages)`).Scan(&there); err != nil {
		return fmt.Errorf("looking for messages: %w", err)
	}
	if there {
		return fmt.Errorf("the database holds messages already: give an empty one")
	}
	if err := l.accounts(ctx); err != nil {
		return err
	}
	if _, err := l.pool.Exec(ctx, `ALTER TABLE messages DISABLE TRIGGER USER`); err != nil {
		return fmt.Errorf("switching the triggers off: %w", err)
	}
	for n := range l.opt.days {
		if _, err := l.pool.Exec(ctx, `SELECT wagate_ensure_partitions(0, $1::date)`, l.dayOf(n)); err != nil {
			return fmt.Errorf("making the partitions of a day: %w", err)
		}
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	made := 0
	began := time.Now()
	for n := l.opt.days - 1; n >= 0; n-- {
		count := l.opt.messages / l.opt.days
		if n == 0 {
			count = l.opt.messages - made
		}
		made += count
		group.Go(func() error { return l.fillDay(gctx, n, count) })
		if n%5 == 0 {
			fmt.Fprintf(out, "… %d messages begun after %s\n", made, time.Since(began).Round(time.Second))
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, sql := range []string{`ALTER TABLE messages ENABLE TRIGGER USER`, `ANALYZE messages`, `ANALYZE message_events`, `ANALYZE wamids`} {
		if _, err := l.pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func (l *load) accounts(ctx context.Context) error {
	for _, p := range l.phones {
		if _, err := l.pool.Exec(ctx, `INSERT INTO wabas (waba_id, name) VALUES ($1, 'reportload') ON CONFLICT DO NOTHING`, p.waba); err != nil {
			return fmt.Errorf("making a WABA: %w", err)
		}
		if _, err := l.pool.Exec(ctx, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, p.id, p.waba); err != nil {
			return fmt.Errorf("making a phone number: %w", err)
		}
	}
	return nil
}

// times gives the moments of a day's messages, in order: few at night, most in the late morning and the evening.
func (l *load) times(rnd *rand.Rand, n, count int) []time.Time {
	start := l.dayOf(n)
	span := 24 * time.Hour
	if n == 0 {
		span = max(l.end.Sub(start), time.Minute)
	}
	all := make([]time.Time, count)
	for i := range all {
		for {
			at := time.Duration(rnd.Int64N(int64(span)))
			h := at.Hours()
			if p := 0.08 + 0.9*math.Exp(-(h-11)*(h-11)/12) + 0.7*math.Exp(-(h-19)*(h-19)/6); n == 0 || rnd.Float64() < p {
				all[i] = start.Add(at).Truncate(time.Microsecond)
				break
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

var messageColumns = []string{
	"id", "phone_number_id", "waba_id", "recipient", "type", "status", "priority", "category", "template_name", "template_language", "reference", "tags", "body",
	"created_at", "try", "marked_by", "epoch", "wamid", "wa_id", "accepted_at", "sent_at", "delivered_at", "read_at", "failed_at", "failed_by_meta",
	"error_code", "error_title", "error_scope", "pricing_billable", "pricing_model", "pricing_type", "pricing_category",
}

func (l *load) fillDay(ctx context.Context, n, count int) error {
	rnd := rand.New(rand.NewPCG(l.opt.seed, uint64(n))) //nolint:gosec // a mix that can be made again, no secret
	times := l.times(rnd, n, count)
	full := n < l.opt.eventDays
	var events, wamids [][]any
	child := "messages_p" + l.dayOf(n).Format("20060102")
	i := 0
	_, err := l.pool.CopyFrom(ctx, pgx.Identifier{child}, messageColumns, pgx.CopyFromFunc(func() ([]any, error) {
		if i == len(times) {
			return nil, nil
		}
		m := l.message(rnd, times[i], i, full)
		i++
		if full {
			events = append(events, m.events()...)
			if m.wamid != nil {
				wamids = append(wamids, []any{m.wamid, m.id})
			}
		}
		return m.row(), nil
	}))
	if err != nil {
		return fmt.Errorf("copying messages into %s: %w", child, err)
	}
	// Rows that come in the order of time leave the indexes by number and reference half empty. A day that is over can be made
	// smaller so by whoever operates a database; the docs say how.
	if _, err := l.pool.Exec(ctx, "REINDEX TABLE "+pgx.Identifier{child}.Sanitize()); err != nil {
		return fmt.Errorf("making the indexes of %s anew: %w", child, err)
	}
	if !full {
		return nil
	}
	slices.SortFunc(events, func(a, b []any) int { return slices.Compare(bytesOf(a[0]), bytesOf(b[0])) })
	if _, err := l.pool.CopyFrom(ctx, pgx.Identifier{"message_events"}, []string{"id", "message_id", "kind", "try", "wamid", "at"}, pgx.CopyFromRows(events)); err != nil {
		return fmt.Errorf("copying events: %w", err)
	}
	if _, err := l.pool.CopyFrom(ctx, pgx.Identifier{"wamids"}, []string{"wamid", "message_id"}, pgx.CopyFromRows(wamids)); err != nil {
		return fmt.Errorf("copying wamids: %w", err)
	}
	return nil
}

func bytesOf(id any) []byte {
	b := id.([16]byte) //nolint:forcetypeassert // made below
	return b[:]
}

// made is one message. Pointers that are nil, and nil anys, are null.
type made struct {
	id                                             [16]byte
	from                                           phone
	recipient, kind, status                        string
	category, template, language, tags, body       any
	created                                        time.Time
	wamid, accepted, sent, delivered, read, failed any
	byMeta                                         bool
	code, title, scope                             any
	billable, model, pricingType, pricingCategory  any
	reference                                      string
	priority, try                                  int
}

func (l *load) message(rnd *rand.Rand, created time.Time, i int, full bool) made {
	m := made{id: idAt(created, rnd), from: l.phones[pick(rnd, l.phones)], created: created, kind: "template", priority: 3, try: 1,
		recipient: fmt.Sprintf("+1650%07d", rnd.IntN(3_000_000)), reference: fmt.Sprintf("order-%d", i)}
	switch p := rnd.Float64(); {
	case p < 0.25:
		m.category, m.priority = "authentication", 1
	case p < 0.60:
		m.category = "utility"
	case p < 0.85:
		m.category, m.priority = "marketing", 4
		m.tags = fmt.Sprintf(`{"campaign":"%s-%d"}`, created.Format("2006-01-02"), rnd.IntN(2))
	default:
		m.kind, m.category = "text", nil
	}
	if name, ok := m.category.(string); ok {
		of := templates[name]
		m.template, m.language = of[min(int(rnd.ExpFloat64()*float64(len(of))/3), len(of)-1)], "en"
	}
	if full {
		m.body = []byte(fmt.Sprintf(`{"messaging_product":"whatsapp","recipient_type":"individual","to":"%s","type":"%s","template":{"name":"%v","language":{"code":"en"},"components":[{"type":"body","parameters":[{"type":"text","text":"%d"}]}]}}`, m.recipient, m.kind, m.template, i))
	}
	l.story(rnd, &m)
	return m
}

// story gives a message its ending. What would lie in the future has not happened yet.
func (l *load) story(rnd *rand.Rand, m *made) {
	after := func(t time.Time, median, sigma float64) time.Time {
		return t.Add(time.Duration(median * math.Exp(sigma*rnd.NormFloat64()) * float64(time.Second))).Truncate(time.Microsecond)
	}
	accepted := after(m.created, 0.8, 1.1)
	sent := after(accepted, 1.2, 0.5).Truncate(time.Second)
	delivered := after(sent, 2.5, 1.3).Truncate(time.Second)
	if rnd.Float64() < 0.03 { // a telephone that was off
		delivered = after(delivered, 9000, 1).Truncate(time.Second)
	}
	read := after(delivered, 900, 1.6).Truncate(time.Second)
	fail := func(at time.Time, byMeta bool, code int, title, scope string) {
		m.status, m.failed, m.byMeta, m.code, m.title, m.scope = "failed", at, byMeta, code, title, scope
	}
	p := rnd.Float64()
	switch {
	case accepted.After(l.end):
		m.status, m.try = "queued", 0
		return
	case p < 0.004:
		m.status, m.try = "expired", 0
		return
	case p < 0.006:
		m.status, m.try = "cancelled", 0
		return
	case p < 0.0062 && l.end.Sub(m.created) < 24*time.Hour:
		m.status = "unknown"
		return
	case p < 0.012 && m.category == "marketing":
		fail(m.created, false, 900_000_002, "The recipient gets no marketing messages from this WABA", "recipient")
		m.try = 0
		return
	case p < 0.022:
		fail(accepted, false, 132001, "Template name does not exist in the translation", "template")
		return
	case p < 0.026:
		fail(accepted, false, 131026, "Message undeliverable", "recipient")
		return
	}
	m.wamid, m.accepted, m.status = wamid(rnd), accepted, "accepted"
	switch {
	case p < 0.055 && sent.Before(l.end):
		fail(sent, true, []int{131026, 131049, 130472, 131053}[rnd.IntN(4)], "Message undeliverable", "")
		m.scope = nil
		return
	case sent.After(l.end):
		return
	}
	m.sent, m.status = sent, "sent"
	m.billable, m.model = rnd.Float64() < 0.7, "PMP"
	m.pricingType, m.pricingCategory = "regular", m.category
	if m.category == nil {
		m.billable, m.pricingType, m.pricingCategory = false, "free_customer_service", "service"
	}
	if p < 0.10 || delivered.After(l.end) {
		return
	}
	m.delivered, m.status = delivered, "delivered"
	if rnd.Float64() < 0.65 && read.Before(l.end) {
		m.read, m.status = read, "read"
	}
}

func (m *made) row() []any {
	return []any{
		m.id, m.from.id, m.from.waba, m.recipient, m.kind, m.status, int16(m.priority), m.category, m.template, m.language, m.reference, m.tags, m.body, //nolint:gosec // 1 to 4
		m.created, int32(m.try), "worker-1-1-00000000", int64(1), m.wamid, m.recipient[1:], m.accepted, m.sent, m.delivered, m.read, m.failed, m.byMeta, //nolint:gosec // small
		m.code, m.title, m.scope, m.billable, m.model, m.pricingType, m.pricingCategory,
	}
}

// events are those that the message's story has left.
func (m *made) events() (all [][]any) {
	for _, e := range []struct {
		kind string
		at   any
	}{{"try.accepted", m.accepted}, {"status.sent", m.sent}, {"status.delivered", m.delivered}, {"status.read", m.read}, {"status.failed", m.failed}} {
		if at, ok := e.at.(time.Time); ok {
			all = append(all, []any{[16]byte(message.NewID(at)), m.id, e.kind, int32(1), m.wamid, at})
		}
	}
	return all
}

// idAt makes a UUIDv7 as message.NewID does, without its lock.
func idAt(at time.Time, rnd *rand.Rand) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16|0x7000|rnd.Uint64()&0xfff)
	binary.BigEndian.PutUint64(id[8:], 1<<63|rnd.Uint64()>>2)
	return id
}

func wamid(rnd *rand.Rand) string {
	var b [33]byte
	for i := 0; i+8 <= len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], rnd.Uint64())
	}
	return "wamid." + base64.StdEncoding.EncodeToString(b[:])
}

func pick(rnd *rand.Rand, of []phone) int {
	var all float64
	for _, p := range of {
		all += p.weight
	}
	at := rnd.Float64() * all
	for i, p := range of {
		if at -= p.weight; at < 0 {
			return i
		}
	}
	return len(of) - 1
}
