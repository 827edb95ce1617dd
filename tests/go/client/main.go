// The stock RocketMQ Go client behind a command line, for the integration tests: the commands, options and lines of output of
// tests/java/client/TestClient.java, as far as the Go client can do them. Everything on standard output is one JSON object a line;
// the last one is {"event":"summary",...}. Exit code 0 says that the command ran to its end, not that every send succeeded:
// the caller judges the lines.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const usage = `usage: testclient COMMAND --topic T [options]
  every command   --namesrv A (default: the environment's NAMESRV_ADDR)  --group G  --trace [--trace-topic T]
  produce         --count N | --until-stdin-closes, --size B, --threads K, --rate PER_SECOND, --run ID, --start-seq S
                  --mode sync|async|oneway|batch|transaction|request|request-async, --batch N, --tags A,B, --delay-level L,
                  --ordered (a sharding key: seq modulo --shards), --timeout MS (of a request), --retries N, --linger S,
                  --open (every transaction until the broker asks), --no-answer (when it asks)
  consume         --expect N (distinct keys), --timeout S, --linger S, --until-stdin-closes, --orderly, --broadcast,
                  --pull (by the pull consumer's poll), --reply (to requests), --sub EXPR, --sql EXPR, --from first|last,
                  --fail-first N, --max-reconsume N
  read            [--broker B] [--queue Q] [--offset O] [--sub EXPR]: pulls every queue up to its end`

// The options of the command line, by name; a flag is "true".
type options map[string]string

func main() {
	if len(os.Args) < 2 || strings.TrimLeft(os.Args[1], "-") == "help" {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	rlog.SetLogLevel("warn")
	err := run(os.Args[1], os.Args[2:])
	if err != nil {
		line("event", "error", "error", err.Error())
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	o := options{}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "--") {
			return fmt.Errorf("not an option: %s", args[i])
		}
		name, value := args[i][2:], "true"
		if i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			i++
			value = args[i]
		}
		o[name] = value
	}
	if !o.has("topic") {
		return fmt.Errorf("--topic is missing")
	}
	switch command {
	case "produce":
		return produce(o)
	case "consume":
		return consume(o)
	case "read":
		return read(o)
	}
	return fmt.Errorf("no such command: %s\n%s", command, usage)
}

func (o options) has(name string) bool {
	_, found := o[name]
	return found
}

func (o options) text(name, otherwise string) string {
	if value, found := o[name]; found {
		return value
	}
	return otherwise
}

// The caller is a test: what is not a number is its fault, and ends the program.
func (o options) number(name string, otherwise int64) int64 {
	value, found := o[name]
	if !found {
		return otherwise
	}
	number, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("--%s: %v", name, err))
	}
	return number
}

func (o options) seconds(name string, otherwise int64) time.Duration {
	return time.Duration(o.number(name, otherwise)) * time.Second
}

func (o options) nameServers() primitive.NamesrvAddr {
	return strings.Split(o.text("namesrv", os.Getenv("NAMESRV_ADDR")), ";")
}

// The client shares everything between instances of one name.
func instance() string {
	return fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())
}

func (o options) traceConfig() *primitive.TraceConfig {
	return &primitive.TraceConfig{
		TraceTopic:   o.text("trace-topic", ""),
		GroupName:    "trace_" + o.text("group", "test"),
		Access:       primitive.Local,
		NamesrvAddrs: o.nameServers(),
	}
}

// Runs action when standard input ends.
func onStdinClosed(action func()) {
	go func() {
		buffer := make([]byte, 256)
		for {
			if _, err := os.Stdin.Read(buffer); err != nil {
				action()
				return
			}
		}
	}()
}
