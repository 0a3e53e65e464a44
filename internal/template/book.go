package template

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wagate/internal/batch"
	"wagate/internal/cloudapi"
	"wagate/internal/content"
	"wagate/internal/message"
	"wagate/internal/store"
)

const (
	// freshFor is how long what is known is used without a look whether it has changed.
	freshFor = 2 * time.Second
	// lookTime bounds one look, lookWait what a message waits for it.
	lookTime = 3 * time.Second
	lookWait = time.Second
	// askEvery is the least time between two refusals that ask for a WABA's list to be read.
	askEvery = time.Minute
	// maxPhones and maxWABAs bound what is remembered, maxRows what is read of one WABA.
	maxPhones = 20_000
	maxWABAs  = 2000
	maxRows   = 20_000
)

// codeNoTemplate is Meta's code for a template that does not exist in the language, or is not approved.
const codeNoTemplate = 132001

// Book says what is known of the templates that messages send, from memory: it looks every two seconds whether anything has
// changed, and once more before it refuses a message. It is safe for concurrent use.
type Book struct {
	store *store.Store
	log   *slog.Logger
	looks *batch.Group[string, *entry]

	mu     sync.RWMutex
	phones map[string]*entry
	wabas  map[string]*catalogue
	asked  map[string]time.Time // when a refusal asked for a WABA's list
}

// entry is what is known of a phone number. It is not changed once others see it, but for stale.
type entry struct {
	*catalogue
	// trusted says that a message may be refused by it, at is when that was looked at.
	trusted bool
	at      time.Time
	// looking says that somebody looks whether it has changed.
	looking atomic.Bool
}

// catalogue is the templates of a WABA at one version.
type catalogue struct {
	waba    string
	version int64
	names   map[string]map[string]*known // by name, and language in lower case
}

// known is one language of a template.
type known struct {
	store.Template                   // without its components, which are many times as large as what is read from them
	definition     *content.Template // nil where that is not known
}

// NewBook makes a Book; Close ends the goroutines it starts.
func NewBook(s *store.Store, logger *slog.Logger) *Book {
	b := &Book{store: s, log: logger, phones: map[string]*entry{}, wabas: map[string]*catalogue{}, asked: map[string]time.Time{}}
	b.looks = batch.New(batch.Config{Max: 500, Linger: time.Millisecond, Flushers: 2}, b.look)
	return b
}

// Close lets looks under way end. What is asked later is not known.
func (b *Book) Close() { b.looks.Close() }

// Prepare has what is known of the WABAs of phone numbers in memory, and gives the moment from which it is known: for
// Template. Where the database is away it is not.
func (b *Book) Prepare(ctx context.Context, phoneNumberIDs []string) (since time.Time) {
	since = time.Now()
	var missing []string
	b.mu.RLock()
	for _, phone := range phoneNumberIDs {
		if e := b.phones[phone]; e == nil || since.Sub(e.at) > freshFor && e.looking.CompareAndSwap(false, true) {
			if !slices.Contains(missing, phone) {
				missing = append(missing, phone)
			}
		}
	}
	b.mu.RUnlock()
	switch len(missing) {
	case 0:
	case 1:
		_, _ = b.ask(ctx, missing[0]) // it has logged why not
	default:
		look, cancel := context.WithTimeout(ctx, lookTime)
		defer cancel()
		_, _ = b.look(look, missing)
	}
	return since
}

// Template gives the category of the template that a message sends, "" where it is not known, and what stands against the
// message. There is something only by a complete list younger than an hour: a template that is deleted, rejected or not yet
// approved, a language that a known template lacks, parameters that are others than its components take. A name that the list
// does not have passes: it may be new. With later only the parameters are looked at, as the rest may change until then.
func (b *Book) Template(ctx context.Context, m *store.NewMessage, since time.Time, later bool) (message.Category, []cloudapi.Fault) {
	e := b.phone(m.PhoneNumberID)
	if e == nil {
		return "", nil
	}
	category, faults := e.judge(m, later)
	if len(faults) == 0 {
		return category, nil
	}
	if e.at.Before(since) { // what stands against it may be over
		var err error
		if e, err = b.ask(ctx, m.PhoneNumberID); err != nil || e == nil {
			return category, nil
		}
		if category, faults = e.judge(m, later); len(faults) == 0 {
			return category, nil
		}
	}
	b.doubt(ctx, e.waba)
	return category, faults
}

func (b *Book) phone(id string) *entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.phones[id]
}

// doubt asks for the list to be read soon: a refusal by what has changed without a word of Meta's should not last.
func (b *Book) doubt(ctx context.Context, waba string) {
	now := time.Now()
	b.mu.Lock()
	due := now.Sub(b.asked[waba]) > askEvery
	if due {
		if len(b.asked) >= maxWABAs {
			clear(b.asked)
		}
		b.asked[waba] = now
	}
	b.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	if err := b.store.WantTemplates(ctx, waba); err != nil {
		b.log.WarnContext(ctx, "a list of templates was not asked for", "waba_id", waba, "err", err)
	}
}

// ask looks at a phone number now, together with others that are asked for; nil where there is none.
func (b *Book) ask(ctx context.Context, phone string) (*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	e, err := b.looks.Do(ctx, phone)
	if err != nil {
		b.looked([]string{phone}) // it may never have been
	}
	return e, err
}

// look looks whether what is known of phone numbers has changed, and reads what has.
func (b *Book) look(ctx context.Context, phones []string) ([]batch.Result[*entry], error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	defer b.looked(phones)
	at := time.Now()
	states, err := b.store.TemplatesOfPhones(ctx, phones)
	if err != nil {
		b.log.WarnContext(ctx, "what is known of templates was not looked at: messages pass unchecked", "err", err)
		return nil, err
	}
	fresh := make(map[string]*entry, len(states))
	for _, s := range states {
		c, err := b.catalogueOf(ctx, s.WABAID, s.Version)
		if err != nil {
			b.log.WarnContext(ctx, "the templates of a WABA were not read: messages pass unchecked", "waba_id", s.WABAID, "err", err)
			return nil, err
		}
		fresh[s.PhoneNumberID] = &entry{catalogue: c, trusted: s.Trusted, at: at}
	}
	b.keep(phones, fresh)
	results := make([]batch.Result[*entry], len(phones))
	for i, phone := range phones {
		results[i].Out = fresh[phone]
	}
	return results, nil
}

// looked lets others look, also where this look has failed.
func (b *Book) looked(phones []string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, phone := range phones {
		if e := b.phones[phone]; e != nil {
			e.looking.Store(false)
		}
	}
}

func (b *Book) keep(phones []string, fresh map[string]*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.phones) >= maxPhones {
		clear(b.phones)
	}
	for _, phone := range phones {
		switch e, old := fresh[phone], b.phones[phone]; {
		case e == nil:
			delete(b.phones, phone)
		case old == nil || !e.at.Before(old.at): // looks may end in another order than they began
			b.phones[phone] = e
		}
	}
}

// catalogueOf gives the templates of a WABA as they are at a version, or were changed since.
func (b *Book) catalogueOf(ctx context.Context, waba string, version int64) (*catalogue, error) {
	b.mu.RLock()
	c := b.wabas[waba]
	b.mu.RUnlock()
	if c != nil && c.version == version {
		return c, nil
	}
	c = &catalogue{waba: waba, version: version, names: map[string]map[string]*known{}}
	if version > 0 {
		rows, err := b.store.TemplatesOf(ctx, waba, maxRows)
		if err != nil {
			return nil, err
		}
		if len(rows) >= maxRows {
			rows = nil // far more than Meta allows: nothing is known
		}
		for _, t := range rows {
			if c.names[t.Name] == nil {
				c.names[t.Name] = map[string]*known{}
			}
			c.names[t.Name][strings.ToLower(t.Language)] = read(t)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.wabas) >= maxWABAs {
		clear(b.wabas)
	}
	b.wabas[waba] = c
	return c, nil
}

// judge is Template by what is in memory.
func (e *entry) judge(m *store.NewMessage, later bool) (message.Category, []cloudapi.Fault) {
	languages := e.names[m.TemplateName]
	if len(languages) == 0 {
		return "", nil
	}
	t := languages[strings.ReplaceAll(strings.ToLower(m.TemplateLanguage), "-", "_")]
	if t == nil {
		if e.trusted && !later {
			return "", lacksLanguage(languages)
		}
		return "", nil
	}
	category, err := message.ParseCategory(strings.ToLower(t.Category))
	if err != nil {
		category = "" // a word of Meta's that is none of its categories
	}
	if !e.trusted {
		return category, nil
	}
	if fault := t.notThere(); fault != "" {
		if later {
			return category, nil
		}
		return category, []cloudapi.Fault{{Pointer: "/template/name", Detail: fault, Code: codeNoTemplate}}
	}
	if d := t.definition; d != nil {
		return category, d.Check(m.Body)
	}
	return category, nil
}

// lacksLanguage says that a template does not have a language. It is for one that the list has in another.
func lacksLanguage(languages map[string]*known) []cloudapi.Fault {
	var there []string
	for _, t := range languages {
		if t.GoneAt == nil && t.ListedAt != nil {
			there = append(there, t.Language)
		}
	}
	if len(there) == 0 {
		return nil
	}
	slices.Sort(there)
	if len(there) > 10 {
		there = append(there[:10], "…")
	}
	return []cloudapi.Fault{{Pointer: "/template/language/code", Detail: "is no language of this template, which has " + strings.Join(there, ", "), Code: codeNoTemplate}}
}

// notThere says why a template cannot be sent at all; "" for one that can, that waits for its pause to end, or of which that is
// not sure: one that was approved before may be sent while an edit of it is PENDING.
func (t *known) notThere() string {
	switch {
	case t.GoneAt != nil, t.Status == "DELETED":
		return "names a template that was deleted, in this language"
	case t.Status == "REJECTED":
		if t.Reason != "" {
			return "names a template that Meta has rejected, in this language: " + t.Reason
		}
		return "names a template that Meta has rejected, in this language"
	case t.Status == "PENDING" && t.ApprovedAt == nil:
		return "names a template that Meta has not approved yet, in this language"
	}
	return ""
}

// read keeps of a template what messages are compared with.
func read(t store.Template) *known {
	k := &known{Template: t}
	k.Components = nil
	if t.Sure {
		if d, err := content.ReadTemplate(t.Components, t.ParameterFormat); err == nil { // else it is not understood, and asks nothing
			k.definition = d
		}
	}
	return k
}
