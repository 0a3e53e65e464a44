package consent

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"wagate/internal/store"
)

// MaxKeyword is the longest keyword, in characters.
const MaxKeyword = 64

// Wish is what a user has said of marketing.
type Wish int

// The wishes.
const (
	None Wish = iota
	Stop
	Resume
)

// Fold is the form in which a keyword and what a user writes are compared: without spaces, punctuation and symbols around it,
// with one space for each gap, in no case. It is "" for what has no letter and no digit.
func Fold(s string) string {
	plain := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	first, last := strings.IndexFunc(s, plain), strings.LastIndexFunc(s, plain)
	if first < 0 {
		return ""
	}
	_, n := utf8.DecodeRuneInString(s[last:])
	end := last + n
	for end < len(s) { // an accent or a vowel sign of the last letter
		r, n := utf8.DecodeRuneInString(s[end:])
		if !unicode.IsMark(r) {
			break
		}
		end += n
	}
	words := strings.Join(strings.Fields(s[first:end]), " ")
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, words)
}

// words are the keywords of one WABA, folded.
type words map[string]Wish

// Keywords tells what users say by the keywords of WABAs. It is safe for concurrent use.
type Keywords struct {
	load func(context.Context) (map[string]store.Keywords, error)
	now  func() time.Time

	mu     sync.Mutex // guards what follows
	wabas  map[string]words
	loaded time.Time
}

// keywordsFor is how long keywords are remembered.
const keywordsFor = 2 * time.Second

// NewKeywords makes a Keywords over what load reads. now is time.Now or a test's clock.
func NewKeywords(load func(context.Context) (map[string]store.Keywords, error), now func() time.Time) *Keywords {
	return &Keywords{load: load, now: now}
}

// Wish is what a user says to a WABA who has written, or pressed, one of the texts. A word that is both ends marketing.
func (k *Keywords) Wish(ctx context.Context, wabaID string, texts []string) (Wish, error) {
	all, err := k.of(ctx, wabaID)
	if err != nil || len(all) == 0 {
		return None, err
	}
	said := None
	for _, text := range texts {
		switch all[Fold(text)] {
		case Stop:
			return Stop, nil
		case Resume:
			said = Resume
		case None:
		}
	}
	return said, nil
}

func (k *Keywords) of(ctx context.Context, wabaID string) (words, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if k.wabas != nil && now.Sub(k.loaded) < keywordsFor && !now.Before(k.loaded) {
		return k.wabas[wabaID], nil
	}
	rows, err := k.load(ctx)
	if err != nil {
		return nil, err
	}
	k.wabas, k.loaded = make(map[string]words, len(rows)), now
	for id, row := range rows {
		of := words{}
		of.add(row.OptIn, Resume)
		of.add(row.OptOut, Stop)
		k.wabas[id] = of
	}
	return k.wabas[wabaID], nil
}

func (w words) add(byLanguage map[string][]string, wish Wish) {
	for _, list := range byLanguage {
		for _, keyword := range list {
			if folded := Fold(keyword); folded != "" {
				w[folded] = wish
			}
		}
	}
}
