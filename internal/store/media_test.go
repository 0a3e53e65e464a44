package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
)

func putMedia(t *testing.T, s *Store, owner, content, mime string) Media {
	t.Helper()
	id := message.NewID(time.Now())
	sum := sha256.Sum256([]byte(content))
	m, err := s.PutMedia(t.Context(), Media{ID: id, Owner: owner, SHA256: sum[:], MIMEType: mime, Size: int64(len(content)), Filename: "a.png", Blob: "media/" + id.String()})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// use stores a message that names media.
func use(ctx context.Context, s *Store, media ...uuid.UUID) (uuid.UUID, error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	m := NewMessage{ID: message.NewID(now), PhoneNumberID: "200", Recipient: "+1", Type: "image", Priority: 3, OnUnknown: "hold", Body: []byte("{}"), CreatedAt: now, Media: media}
	return m.ID, s.InTx(ctx, func(tx pgx.Tx) error {
		_, err := s.Accept(ctx, tx, []NewMessage{m})
		return err
	})
}

func mustUse(t *testing.T, s *Store, media ...uuid.UUID) uuid.UUID {
	t.Helper()
	id, err := use(t.Context(), s, media...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func run(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func TestMediaOfOneOwnerContentAndTypeAreOne(t *testing.T) {
	s, _ := decidable(t)
	first := putMedia(t, s, "a", "one", "image/png")
	if again := putMedia(t, s, "a", "one", "image/png"); again.ID != first.ID || again.Blob != first.Blob || again.UsedAt.Before(first.UsedAt) {
		t.Errorf("%+v after %+v", again, first)
	}
	seen := map[uuid.UUID]bool{first.ID: true}
	for _, of := range [][3]string{{"b", "one", "image/png"}, {"a", "two", "image/png"}, {"a", "one", "image/jpeg"}} {
		other := putMedia(t, s, of[0], of[1], of[2])
		if seen[other.ID] {
			t.Errorf("%v is another's", of)
		}
		seen[other.ID] = true
	}
	got, err := s.GetMedia(t.Context(), first.ID)
	if err != nil || got.MIMEType != "image/png" || got.Size != 3 || got.Filename != "a.png" || got.Owner != "a" {
		t.Errorf("%+v, %v", got, err)
	}
	types, err := s.OwnMediaTypes(t.Context(), "a", []uuid.UUID{first.ID, uuid.New()})
	if err != nil || !reflect.DeepEqual(types, map[uuid.UUID]string{first.ID: "image/png"}) {
		t.Errorf("%v, %v", types, err)
	}
	if types, err = s.OwnMediaTypes(t.Context(), "b", []uuid.UUID{first.ID}); err != nil || len(types) != 0 {
		t.Errorf("another owner has %v, %v", types, err)
	}
}

func TestMediaThatMessagesWaitForStay(t *testing.T) {
	s, pool := decidable(t)
	m := putMedia(t, s, "a", "one", "image/png")
	id := mustUse(t, s, m.ID, m.ID)
	mustUse(t, s, m.ID)
	run(t, pool, `UPDATE media SET used_at = now() - interval '3 days'`)
	if blobs, err := s.DropUnusedMedia(t.Context(), 48*time.Hour, 10); err != nil || len(blobs) != 0 {
		t.Errorf("dropped %v, %v", blobs, err)
	}
	if blob, waiting, err := s.DeleteMedia(t.Context(), m.ID); err != nil || waiting != 2 {
		t.Errorf("%s, %d wait, %v", blob, waiting, err)
	}
	run(t, pool, `UPDATE messages SET status = 'cancelled' WHERE id = $1`, id)
	if _, waiting, err := s.DeleteMedia(t.Context(), m.ID); err != nil || waiting != 1 {
		t.Errorf("%d wait, %v", waiting, err)
	}
	run(t, pool, `UPDATE messages SET status = 'accepted'`)
	if blobs, err := s.DropUnusedMedia(t.Context(), 4*24*time.Hour, 10); err != nil || len(blobs) != 0 {
		t.Errorf("dropped %v, %v", blobs, err)
	}
	if blobs, err := s.DropUnusedMedia(t.Context(), 48*time.Hour, 10); err != nil || !reflect.DeepEqual(blobs, []string{m.Blob}) {
		t.Errorf("dropped %v, %v", blobs, err)
	}
	if _, _, err := s.DeleteMedia(t.Context(), m.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting what is gone: %v", err)
	}
	if _, err := use(t.Context(), s, m.ID); !errors.Is(err, ErrMediaGone) {
		t.Errorf("a message that names what is gone: %v", err)
	}
}

// A message that is accepted while a media that it names is deleted is either seen by the deletion or refused.
func TestDeletingMediaWaitsForWhoeverNamesIt(t *testing.T) {
	s, _ := decidable(t)
	m := putMedia(t, s, "a", "one", "image/png")
	deleted := make(chan int, 1)
	now := time.Now().UTC()
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		_, err := s.Accept(t.Context(), tx, []NewMessage{{ID: message.NewID(now), PhoneNumberID: "200", Recipient: "+1", Type: "image", Priority: 3, OnUnknown: "hold", CreatedAt: now, Media: []uuid.UUID{m.ID}}})
		if err != nil {
			return err
		}
		started := make(chan struct{})
		go func() {
			close(started)
			_, waiting, err := s.DeleteMedia(t.Context(), m.ID)
			if err != nil {
				t.Error(err)
			}
			deleted <- waiting
		}()
		<-started
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if waiting := <-deleted; waiting != 1 {
		t.Errorf("it was deleted beside %d waiting messages", waiting)
	}
}

func TestMetaIDsForTwentyNineDays(t *testing.T) {
	s, pool := decidable(t)
	m := putMedia(t, s, "a", "one", "image/png")
	at, elsewhere := MediaAt{m.ID, "200"}, MediaAt{m.ID, "201"}
	ids := func() map[MediaAt]string {
		t.Helper()
		found, err := s.MetaIDs(t.Context(), []MediaAt{at, elsewhere})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if err := s.KeepMediaUpload(t.Context(), at, "777"); err != nil {
		t.Fatal(err)
	}
	if got := ids(); !reflect.DeepEqual(got, map[MediaAt]string{at: "777"}) {
		t.Errorf("%v", got)
	}
	for age, n := range map[string]int{"28 days 23 hours": 1, "29 days 1 hour": 0} {
		run(t, pool, `UPDATE media_uploads SET uploaded_at = now() - $1::interval`, age)
		if got := ids(); len(got) != n {
			t.Errorf("after %s: %v", age, got)
		}
	}
	if err := s.KeepMediaUpload(t.Context(), at, "778"); err != nil {
		t.Fatal(err)
	}
	if got := ids(); got[at] != "778" {
		t.Errorf("%v", got)
	}
	if err := s.KeepMediaUpload(t.Context(), MediaAt{uuid.New(), "200"}, "1"); !errors.Is(err, ErrMediaGone) {
		t.Errorf("of a media that is gone: %v", err)
	}
}

func renew(t *testing.T, s *Store, set ...Renewal) (renewed map[uuid.UUID]bool) {
	t.Helper()
	err := s.InTx(t.Context(), func(tx pgx.Tx) (err error) {
		renewed, err = s.RenewMedia(t.Context(), tx, set)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

func TestRenewingMediaOnceAMessage(t *testing.T) {
	s, pool := decidable(t)
	m := putMedia(t, s, "a", "one", "image/png")
	at := MediaAt{m.ID, "200"}
	known := func() bool {
		t.Helper()
		found, err := s.MetaIDs(t.Context(), []MediaAt{at, {m.ID, "201"}})
		if err != nil {
			t.Fatal(err)
		}
		if found[MediaAt{m.ID, "201"}] != "900" {
			t.Error("the other phone number's is forgotten as well")
		}
		return found[at] != ""
	}
	upload := func() {
		t.Helper()
		if err := s.KeepMediaUpload(t.Context(), at, "777"); err != nil {
			t.Fatal(err)
		}
	}
	upload()
	if err := s.KeepMediaUpload(t.Context(), MediaAt{m.ID, "201"}, "900"); err != nil {
		t.Fatal(err)
	}
	first, second, third, fourth := mustUse(t, s, m.ID), mustUse(t, s, m.ID), mustUse(t, s, m.ID), mustUse(t, s, m.ID)
	plain := mustUse(t, s)
	if got := renew(t, s, Renewal{plain, "200", time.Now()}); len(got) != 0 || !known() {
		t.Errorf("a message without media: %v", got)
	}
	if got := renew(t, s, Renewal{first, "200", time.Now()}); !got[first] || known() {
		t.Errorf("the first time: %v, known %v", got, known())
	}
	upload()
	if got := renew(t, s, Renewal{first, "200", time.Now()}); len(got) != 0 || !known() {
		t.Errorf("a second time: %v, known %v", got, known())
	}
	// It was sent with the id of before: the new one is not to blame.
	if got := renew(t, s, Renewal{second, "200", time.Now().Add(-time.Hour)}); !got[second] || !known() {
		t.Errorf("one that was sent before: %v, known %v", got, known())
	}
	// It was not, but the media was put up again less than a minute ago.
	if got := renew(t, s, Renewal{third, "200", time.Now()}); !got[third] || !known() {
		t.Errorf("within a minute: %v, known %v", got, known())
	}
	run(t, pool, `UPDATE media_uploads SET uploaded_at = uploaded_at - interval '2 minutes', refused_at = refused_at - interval '2 minutes'`)
	if got := renew(t, s, Renewal{fourth, "200", time.Now()}); !got[fourth] || known() {
		t.Errorf("after it: %v, known %v", got, known())
	}
	views, err := s.MediaUploads(t.Context(), m.ID)
	if err != nil || len(views) != 2 || views[0].ValidUntil.After(time.Now()) || views[1].ValidUntil.Before(time.Now().Add(28*24*time.Hour)) {
		t.Errorf("%+v, %v", views, err)
	}
}

func TestNotesOfEndedMessagesAreSwept(t *testing.T) {
	s, pool := decidable(t)
	m := putMedia(t, s, "a", "one", "image/png")
	left := map[string]int{
		"'queued'": 1, "'sending'": 1, "'unknown'": 1, "'delivered'": 0, "'failed'": 0, "'cancelled'": 0, "'accepted'": 1, "'sent'": 1,
		"'accepted', accepted_at = now() - interval '9 days'": 0,
	}
	want := 0
	for set, n := range left {
		run(t, pool, `UPDATE messages SET status = `+set+` WHERE id = $1`, mustUse(t, s, m.ID))
		want += n
	}
	for after := uuid.Nil; ; {
		next, err := s.SweepMediaUses(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if next == uuid.Nil {
			break
		}
		after = next
	}
	if got := scalar[int](t, pool, `SELECT count(*)::integer FROM media_uses`); got != want {
		t.Errorf("%d notes are left, want %d", got, want)
	}
}

func TestReleaseMedia(t *testing.T) {
	s, _ := decidable(t)
	media, other := uuid.New(), uuid.New()
	park := func(media uuid.UUID, phone string) uuid.UUID {
		t.Helper()
		id := message.NewID(time.Now())
		err := s.InTx(t.Context(), func(tx pgx.Tx) error {
			return s.Park(t.Context(), tx, []Hold{{MessageID: id, PhoneNumberID: phone, WABAID: "100", Kind: HoldMedia, Value: media.String(), Priority: 2, Place: base}})
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	mine := map[uuid.UUID]bool{park(media, "200"): true, park(media, "200"): true, park(media, "200"): true}
	park(media, "201")
	park(other, "200")
	for _, want := range []int{2, 1, 0} {
		var holds []Hold
		err := s.InTx(t.Context(), func(tx pgx.Tx) (err error) {
			holds, err = s.ReleaseMedia(t.Context(), tx, "100", MediaAt{media, "200"}, 2)
			return err
		})
		if err != nil || len(holds) != want {
			t.Fatalf("%v, %v, want %d", holds, err, want)
		}
		for _, h := range holds {
			if !mine[h.MessageID] {
				t.Errorf("%+v was released", h)
			}
		}
	}
}

func TestTheMediaStoreHasOneMark(t *testing.T) {
	s, _ := decidable(t)
	if _, err := s.MediaStoreMark(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("before there is one: %v", err)
	}
	mine := uuid.New()
	for _, mark := range []uuid.UUID{mine, uuid.New()} {
		if got, err := s.MarkMediaStore(t.Context(), mark); err != nil || got != mine {
			t.Errorf("%v, %v", got, err)
		}
	}
	if got, err := s.MediaStoreMark(t.Context()); err != nil || got != mine {
		t.Errorf("%v, %v", got, err)
	}
}

// A media that was sent often takes long to look through. Nobody whose message names it waits for that.
func TestDeletingAMediaHoldsUpNobodyForWhatHasEnded(t *testing.T) {
	s, pool := decidable(t)
	m := putMedia(t, s, "a", "one", "image/png")
	old := message.NewID(time.Now().Add(-time.Hour))
	run(t, pool, `INSERT INTO media_uses (message_id, media_id) VALUES ($1, $2)`, old, m.ID)
	deleted := make(chan int, 1)
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT FROM media_uses WHERE message_id = $1 FOR UPDATE`, old); err != nil {
			return err
		}
		go func() {
			_, waiting, err := s.DeleteMedia(t.Context(), m.ID)
			if err != nil {
				t.Error(err)
			}
			deleted <- waiting
		}()
		for waits := false; !waits; { // until the deletion is at that note
			err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
			if err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := use(ctx, s, m.ID)
		return err
	})
	if err != nil {
		t.Error("a message that names it was not accepted meanwhile:", err)
	}
	if waiting := <-deleted; waiting != 1 {
		t.Errorf("%d wait, want the one that was accepted meanwhile", waiting)
	}
}

// Of a message with several media all notes go, wherever a part of them ends.
func TestSweepingLeavesNoNoteBehind(t *testing.T) {
	s, pool := decidable(t)
	var media []uuid.UUID
	for _, content := range []string{"one", "two", "three"} {
		media = append(media, putMedia(t, s, "a", content, "image/png").ID)
	}
	for range 3 {
		mustUse(t, s, media...)
	}
	waits := mustUse(t, s, media...)
	run(t, pool, `UPDATE messages SET status = 'delivered' WHERE id <> $1`, waits)
	for after, limit := uuid.Nil, 2; ; {
		next, err := s.SweepMediaUses(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if after = next; next == uuid.Nil {
			break
		}
	}
	var left, of int
	if err := pool.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE message_id = $1) FROM media_uses`, waits).Scan(&left, &of); err != nil || left != 3 || of != 3 {
		t.Errorf("%d notes left, %d of what waits, want its 3: %v", left, of, err)
	}
}
