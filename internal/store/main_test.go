package store_test

import (
	"testing"

	"wagate/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
