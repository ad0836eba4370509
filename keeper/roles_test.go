package keeper_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"time"
)

// writerMain is a container's process: it writes numbered lines to both streams, some in pieces, and exits with a code.
//
//	writer LINES MICROSECONDS CODE
func writerMain(args []string) int {
	n, _ := strconv.Atoi(args[0])
	pause, _ := strconv.Atoi(args[1])
	code, _ := strconv.Atoi(args[2])
	for i := range n {
		line := fmt.Sprintf("line %d\n", i)
		if i%7 == 3 {
			os.Stdout.WriteString(line[:4])
			line = line[4:]
		}
		if _, err := os.Stdout.WriteString(line); err != nil {
			return 99
		}
		if i%5 == 0 {
			if _, err := fmt.Fprintf(os.Stderr, "line %d\n", i/5); err != nil {
				return 98
			}
		}
		if pause > 0 && i%10 == 0 {
			time.Sleep(time.Duration(pause) * time.Microsecond)
		}
	}
	return code
}

var _ = bufio.NewReader

func engineMain(args []string) int { return 0 }
