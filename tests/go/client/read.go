package main

import (
	"context"
	"fmt"
	"sort"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// Names of Java's PullStatus, by the client's number.
var pullStatus = []string{"FOUND", "NO_NEW_MSG", "NO_MATCHED_MSG", "OFFSET_ILLEGAL", "BROKER_TIMEOUT"}

func read(o options) error {
	queues, err := o.queues()
	if err != nil {
		return err
	}
	configuration := append(o.consumerOptions(), consumer.WithGroupName(o.text("group", "test_reader")))
	reader, err := rocketmq.NewPullConsumer(configuration...)
	if err != nil {
		return err
	}
	if err = reader.Subscribe(o["topic"], o.selector()); err != nil {
		return err
	}
	if err = reader.Start(); err != nil {
		return err
	}
	total := 0
	for _, queue := range queues {
		offset := o.number("offset", 0)
		for more := true; more; {
			result, err := reader.PullFrom(context.Background(), queue, offset, 32)
			if err != nil {
				return fmt.Errorf("%v at %d: %w", queue, offset, err)
			}
			for _, message := range result.GetMessageExts() {
				printMessage(message, queue.BrokerName)
				total++
			}
			more = result.NextBeginOffset > offset && result.NextBeginOffset < result.MaxOffset
			if !more {
				line("event", "pulled", "broker", queue.BrokerName, "queueId", queue.QueueId, "status", pullStatus[result.Status],
					"next", result.NextBeginOffset, "min", result.MinOffset, "max", result.MaxOffset)
			}
			offset = result.NextBeginOffset
		}
	}
	line("event", "summary", "delivered", total)
	return reader.Shutdown()
}

// The queues of the topic that the options choose, in order.
func (o options) queues() ([]*primitive.MessageQueue, error) {
	asker, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver(o.nameServers())))
	if err != nil {
		return nil, err
	}
	all, err := asker.FetchPublishMessageQueues(context.Background(), o["topic"])
	if err != nil {
		return nil, err
	}
	var chosen []*primitive.MessageQueue
	for _, queue := range all {
		if o.text("broker", queue.BrokerName) == queue.BrokerName && o.number("queue", int64(queue.QueueId)) == int64(queue.QueueId) {
			chosen = append(chosen, queue)
		}
	}
	sort.Slice(chosen, func(a, b int) bool {
		if chosen[a].BrokerName != chosen[b].BrokerName {
			return chosen[a].BrokerName < chosen[b].BrokerName
		}
		return chosen[a].QueueId < chosen[b].QueueId
	})
	return chosen, nil
}
