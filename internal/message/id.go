package message

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	maxMillis = 1<<48 - 1
	maxLow    = 1<<62 - 1
)

// ids remembers the last id made, so that ids of one millisecond ascend.
var ids struct {
	sync.Mutex
	millis int64
	high   uint16 // the 12 bits after the version
	low    uint64 // the 62 bits after the variant
}

// NewID makes a UUIDv7 (RFC 9562) that carries now's milliseconds; the other
// 74 bits are random. Ids made by one process for the same millisecond, one
// after the other, ascend. A now before 1970 counts as 1970.
func NewID(now time.Time) uuid.UUID {
	millis := min(max(now.UnixMilli(), 0), maxMillis)
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead

	ids.Lock()
	defer ids.Unlock()
	next := ids.low + 1 + uint64(binary.BigEndian.Uint32(random[:4]))
	switch {
	case millis != ids.millis:
		ids.millis = millis
		// The top bit stays free, as room for the ids that follow.
		ids.high = binary.BigEndian.Uint16(random[:2]) & 0x7ff
		ids.low = binary.BigEndian.Uint64(random[2:]) & maxLow
	case next > maxLow:
		ids.high = (ids.high + 1) & 0xfff
		ids.low = next & maxLow
	default:
		ids.low = next
	}

	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(millis)<<16|0x7000|uint64(ids.high))
	binary.BigEndian.PutUint64(id[8:], 1<<63|ids.low)
	return id
}

// TimeOf gives the moment an id of NewID carries, to the millisecond, in UTC.
func TimeOf(id uuid.UUID) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

// ErrNotID is what ParseID gives for anything that is no id of ours.
var ErrNotID = errors.New("not a message id (a UUIDv7)")

// ParseID reads a message id: a UUIDv7 in its 36-character form.
func ParseID(s string) (uuid.UUID, error) {
	if len(s) != 36 {
		return uuid.Nil, ErrNotID
	}
	id, err := uuid.Parse(s)
	if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		return uuid.Nil, ErrNotID
	}
	return id, nil
}
