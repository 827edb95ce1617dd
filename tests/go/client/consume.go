package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// What a command of consuming goes by.
type receiver struct {
	options
	replier   rocketmq.Producer
	mutex     sync.Mutex
	seen      map[string]bool
	delivered int
	finished  chan struct{}
	finish    sync.Once
}

func consume(o options) (err error) {
	r := &receiver{options: o, seen: map[string]bool{}, finished: make(chan struct{})}
	if o.has("until-stdin-closes") {
		onStdinClosed(r.end)
	}
	if o.has("reply") {
		group := "replier_" + o.text("group", "test_consumer")
		r.replier, err = rocketmq.NewProducer(producer.WithNameServer(o.nameServers()), producer.WithGroupName(group),
			producer.WithInstanceName(instance()), producer.WithRetry(0))
		if err == nil {
			err = r.replier.Start()
		}
		if err != nil {
			return err
		}
	}
	var stop func() error
	if o.has("pull") {
		stop, err = r.poll()
	} else {
		stop, err = r.push()
	}
	if err != nil {
		return err
	}
	complete := true
	select {
	case <-r.finished:
	case <-time.After(o.seconds("timeout", 60)):
		complete = false
	}
	time.Sleep(o.seconds("linger", 0))
	if err = stop(); err == nil && r.replier != nil {
		err = r.replier.Shutdown()
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	line("event", "summary", "complete", complete, "distinct", len(r.seen), "delivered", r.delivered)
	return err
}

func (r *receiver) end() {
	r.finish.Do(func() { close(r.finished) })
}

func (o options) consumerOptions() []consumer.Option {
	configuration := []consumer.Option{
		consumer.WithNameServer(o.nameServers()),
		consumer.WithGroupName(o.text("group", "test_consumer")),
		consumer.WithInstance(instance()),
	}
	if o.text("from", "first") == "first" {
		configuration = append(configuration, consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	} else {
		configuration = append(configuration, consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset))
	}
	if o.has("max-reconsume") {
		configuration = append(configuration, consumer.WithMaxReconsumeTimes(int32(o.number("max-reconsume", 16))))
	}
	if o.has("broadcast") {
		configuration = append(configuration, consumer.WithConsumerModel(consumer.BroadCasting))
	}
	if o.has("orderly") {
		configuration = append(configuration, consumer.WithConsumerOrder(true))
	}
	if o.has("trace") {
		configuration = append(configuration, consumer.WithTrace(o.traceConfig()))
	}
	return configuration
}

func (o options) selector() consumer.MessageSelector {
	if o.has("sql") {
		return consumer.MessageSelector{Type: consumer.SQL92, Expression: o["sql"]}
	}
	return consumer.MessageSelector{Type: consumer.TAG, Expression: o.text("sub", "*")}
}

// Starts the push consumer; what is returned stops it.
func (r *receiver) push() (func() error, error) {
	pushed, err := rocketmq.NewPushConsumer(r.consumerOptions()...)
	if err != nil {
		return nil, err
	}
	err = pushed.Subscribe(r.options["topic"], r.selector(),
		func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			broker := "?"
			if consuming, found := primitive.GetConsumerCtx(ctx); found {
				broker = consuming.MQ.BrokerName
			}
			return r.received(messages, broker), nil
		})
	if err == nil {
		err = pushed.Start()
	}
	if err == nil {
		line("event", "started")
		go r.watchAssignment(pushed)
	}
	return pushed.Shutdown, err
}

// Starts the pull consumer, which shares queues as the push consumer does but hands messages out when it is asked.
func (r *receiver) poll() (func() error, error) {
	pulled, err := rocketmq.NewPullConsumer(r.consumerOptions()...)
	if err != nil {
		return nil, err
	}
	if err = pulled.Subscribe(r.options["topic"], r.selector()); err == nil {
		err = pulled.Start()
	}
	if err != nil {
		return nil, err
	}
	line("event", "started")
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			default:
			}
			request, err := pulled.Poll(context.Background(), time.Second)
			if err != nil {
				if !consumer.IsNoNewMsgError(err) {
					fmt.Fprintln(os.Stderr, "poll:", err)
				}
				continue
			}
			pulled.ACK(context.Background(), request, r.received(request.GetMsgList(), request.GetMQ().BrokerName))
		}
	}()
	return func() error {
		close(stopped)
		<-done
		return pulled.Shutdown()
	}, nil
}

func (r *receiver) received(messages []*primitive.MessageExt, broker string) consumer.ConsumeResult {
	result := consumer.ConsumeSuccess
	for _, message := range messages {
		printMessage(message, broker)
		if r.replier != nil {
			r.reply(message)
		}
		if int64(message.ReconsumeTimes) < r.number("fail-first", 0) {
			result = consumer.ConsumeRetryLater
		}
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, message := range messages {
		r.delivered++
		r.seen[message.GetKeys()] = true
	}
	if r.has("expect") && int64(len(r.seen)) >= r.number("expect", 0) {
		r.end()
	}
	return result
}

func (r *receiver) reply(request *primitive.MessageExt) {
	text := []byte(replyTo(request.GetKeys()))
	reply, err := consumer.CreateReplyMessage(request, text)
	var outcome, failure interface{}
	if err == nil {
		// 2.1.2 takes the body for properties.
		reply.Body = text
		var result *primitive.SendResult
		if result, err = r.replier.SendSync(context.Background(), reply); err == nil {
			outcome = status(result.Status)
		}
	}
	if err != nil {
		failure = err.Error()
	}
	line("event", "reply", "to", request.GetKeys(), "result", outcome, "error", failure)
}

// The queues that rebalancing gave to this consumer, each time they change. The client tells them only in what it would answer to
// mqadmin, whose type has no name outside of it.
func (r *receiver) watchAssignment(pushed rocketmq.PushConsumer) {
	last := ""
	for {
		info := reflect.ValueOf(pushed).MethodByName("GetConsumerRunningInfo").Call([]reflect.Value{reflect.ValueOf(false)})[0]
		var mine []string
		for _, key := range info.Elem().FieldByName("MQTable").MapKeys() {
			if queue := key.Interface().(primitive.MessageQueue); queue.Topic == r.options["topic"] {
				mine = append(mine, fmt.Sprintf("%s:%d", queue.BrokerName, queue.QueueId))
			}
		}
		sort.Strings(mine)
		if now := strings.Join(mine, ","); now != last {
			line("event", "assigned", "queues", now)
			last = now
		}
		time.Sleep(200 * time.Millisecond)
	}
}
