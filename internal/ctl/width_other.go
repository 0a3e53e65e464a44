//go:build !linux && !darwin

package ctl

import "io"

// terminalWidth is not known here.
func terminalWidth(io.Writer) int { return 0 }
