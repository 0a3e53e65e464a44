package policy

import "time"

// Pause is how long a scope stops: exponentially longer from Base to Limit, or
// until an operator or a webhook lifts it.
type Pause struct {
	Base, Limit time.Duration
	Least       time.Duration // it is never shorter, whatever the jitter; 0 for none
	UntilLifted bool          // no end: Base and Limit are 0
}

// floorShare of Base is the shortest pause, so that no jitter makes a busy loop.
const floorShare = 20

// Delay gives the length of a pause at a level, which counts the pauses of the
// scope since it last went well, from 0: full jitter over [0, min(Base<<level,
// Limit)], not below Base/20 or Least, and not above upper (a setting; 0 for none);
// but never below lower, which is what Meta itself asks for. r gives a random number
// in [0, n), as rand.Int64N does. Of a pause until lifted only the bounds are left.
func (p Pause) Delay(level int, lower, upper time.Duration, r func(n int64) int64) time.Duration {
	top := p.Base
	for i := 0; i < level && top < p.Limit; i++ {
		top *= 2
	}
	top = max(min(top, p.Limit), 0)
	wait := time.Duration(r(int64(top) + 1))
	wait = max(wait, p.Base/floorShare, p.Least)
	if upper > 0 {
		wait = min(wait, upper)
	}
	return max(wait, lower)
}
