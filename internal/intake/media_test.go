package intake_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/intake"
	"wagate/internal/message"
	"wagate/internal/store"
)

func keepMedia(t *testing.T, pool *pgxpool.Pool, owner, mime string) string {
	t.Helper()
	id := message.NewID(time.Now())
	sum := sha256.Sum256(id[:])
	m, err := store.New(pool).PutMedia(t.Context(), store.Media{ID: id, Owner: owner, SHA256: sum[:], MIMEType: mime, Size: 1, Blob: id.String()})
	if err != nil {
		t.Fatal(err)
	}
	return m.ID.String()
}

func naming(kind, id, extra string) []byte {
	return fmt.Appendf(nil, `{"from":%q,"to":"+16505551234","type":%q,%q:{"id":%q}%s}`, phone, kind, kind, id, extra)
}

// withFallback is a text whose fallback template names a media.
func withFallback(id string) []byte {
	return fmt.Appendf(nil, `{"from":%q,"to":"+16505551234","type":"text","text":{"body":"a"},"gateway":{"fallback_template":{"name":"a","language":{"code":"en"},`+
		`"components":[{"type":"header","parameters":[{"type":"image","image":{"id":%q}}]}]}}}`, phone, id)
}

func faults(t *testing.T, err error) string {
	t.Helper()
	var e *intake.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v", err)
	}
	var all []string
	for _, f := range e.Faults {
		all = append(all, f.Pointer+" "+f.Detail)
	}
	return strings.Join(all, "; ")
}

func TestMediaOfTheCallersOwnerAndAFittingKind(t *testing.T) {
	in, pool := setup(t)
	png, pdf, webp, foreign := keepMedia(t, pool, "shop", "image/png"), keepMedia(t, pool, "shop", "application/pdf"), keepMedia(t, pool, "shop", "image/webp"), keepMedia(t, pool, "other", "image/png")
	const unknown = "is no media of this API key's owner"
	for _, c := range []struct {
		body []byte
		want string // empty for one that is taken
	}{
		{naming("image", png, ""), ""},
		{naming("image", strings.ToUpper(png), ""), ""},
		{naming("document", pdf, ""), ""},
		{naming("document", png, ""), ""},
		{naming("sticker", webp, ""), ""},
		{naming("image", "123456", ""), ""},
		{naming("image", pdf, ""), "/image/id is a media of type application/pdf, which cannot be sent as image"},
		{naming("sticker", png, ""), "/sticker/id is a media of type image/png, which cannot be sent as sticker"},
		{naming("image", webp, ""), "/image/id is a media of type image/webp, which cannot be sent as image"},
		{naming("image", foreign, ""), "/image/id " + unknown},
		{withFallback(png), ""},
		{withFallback(foreign), "/gateway/fallback_template/components/0/parameters/0/image/id " + unknown},
		{naming("video", uuid.NewString(), ""), "/video/id " + unknown},
		{naming("image", foreign, `,"gateway":{"priority":"soon"}`), "/gateway/priority must be urgent, high, normal or low; /image/id " + unknown},
	} {
		for name, take := range map[string]func() error{
			"check": func() error { return in.Check(t.Context(), intake.Request{Caller: caller, Body: c.body}) },
			"accept": func() error {
				_, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: c.body})
				return err
			},
			"many": func() error {
				return in.AcceptMany(t.Context(), []intake.Request{{Caller: caller, Body: text("")}, {Caller: caller, Body: c.body}})[1].Err
			},
		} {
			err := take()
			if c.want == "" && err != nil {
				t.Errorf("%s %s: %v", name, c.body, err)
			}
			if c.want != "" && (kindOf(err) != intake.Invalid || faults(t, err) != c.want) {
				t.Errorf("%s %s: %s, want %s", name, c.body, faults(t, err), c.want)
			}
		}
	}
	if n := count(t, pool, "media_uses"); n != 12 { // six of ours, each accepted twice
		t.Errorf("%d notes of media, want 12", n)
	}
}

// A request that was accepted gets its answer again when its media is gone; a message that failed cannot be made anew then.
func TestMediaThatAreGone(t *testing.T) {
	in, pool := setup(t)
	s := store.New(pool)
	png := keepMedia(t, pool, "shop", "image/png")
	first, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: naming("image", png, ""), IdempotencyKey: "once"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET status = 'failed'`); err != nil {
		t.Fatal(err)
	}
	made, err := in.Resend(t.Context(), caller, first.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, waiting, err := s.DeleteMedia(t.Context(), uuid.MustParse(png)); err != nil || waiting != 1 {
		t.Errorf("the message that was made anew, %s, is not counted: %d, %v", made.ID, waiting, err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET status = 'failed'`); err != nil {
		t.Fatal(err)
	}
	if _, waiting, err := s.DeleteMedia(t.Context(), uuid.MustParse(png)); err != nil || waiting != 0 {
		t.Fatalf("%d, %v", waiting, err)
	}
	again, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: naming("image", png, ""), IdempotencyKey: "once"})
	if err != nil || !again.Replayed || again.ID != first.ID {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := in.Resend(t.Context(), caller, first.ID, ""); !errors.Is(err, store.ErrMediaGone) {
		t.Errorf("made anew without its media: %v", err)
	}
}
