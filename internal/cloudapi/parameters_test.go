package cloudapi

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestIsGraphParameter(t *testing.T) {
	for name, want := range map[string]bool{
		"method": true, "METHOD": true, " batch": true, "batch[0]": true, "access.token": true, "access token": true, "Appsecret_Proof": true,
		"ids\x00x": true, "callbac\u212a": true,
		"methods": false, "metho": false, "": false, "message_id": false, "id": false, "[method]": false, "x method": false, "callbäck": false,
	} {
		if got := IsGraphParameter([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { IsGraphParameter([]byte("biz_opaque_callback_data")) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// The quick way says what folding the name says.
func TestIsGraphParameterFolds(t *testing.T) {
	all := slices.Concat(RequestParameters, KeyParameters)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.SampledFrom(all), rapid.StringMatching(`[ .\[A-Za-z_\x00é]{0,8}`)).Draw(t, "name")
		name = rapid.StringMatching(`[ .\[]{0,2}`).Draw(t, "before") + name + rapid.StringMatching(`[ .\[\x00x]{0,2}`).Draw(t, "after")
		if got, want := IsGraphParameter([]byte(name)), slices.Contains(all, FoldParameter(name)); got != want {
			t.Fatalf("%q: %v", name, got)
		}
	})
}
