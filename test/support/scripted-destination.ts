/** A destination by script: reads the stream as any does, and says on the return path only what the script wants. */
import { Writer } from '../../src/base/index.ts';
import type { Channel } from '../../src/transport/index.ts';
import {
  encodeReturnPathMessage,
  type RamSink,
  type ReturnPathMessage,
  type StreamEvent,
  StreamInput,
  StreamParser,
} from '../../src/wire/index.ts';

const NOWHERE: RamSink = { page() {}, zero() {}, read() {} };

/** Undefined when the stream is over, or the channel's other side has ended. */
export async function nextEvent(
  parser: StreamParser,
  input: StreamInput,
  channel: Channel,
): Promise<StreamEvent | undefined> {
  for (;;) {
    const event = parser.next();
    if (event !== undefined || parser.finished) return event;
    input.release();
    const chunk = await channel.read();
    if (chunk === null) return undefined;
    input.add(chunk);
  }
}

export class ScriptedDestination {
  readonly channel: Channel;
  readonly seen: StreamEvent[] = [];
  readonly #input: StreamInput;
  readonly #parser: StreamParser;

  constructor(channel: Channel) {
    this.channel = channel;
    this.#input = new StreamInput(channel.label);
    this.#parser = new StreamParser(this.#input.reader);
  }

  /** The next event; undefined when the source has ended its side. */
  async next(): Promise<StreamEvent | undefined> {
    const event = await nextEvent(this.#parser, this.#input, this.channel);
    if (event?.kind === 'ram-blocks') this.#parser.setRamSink(NOWHERE);
    if (event !== undefined && event.kind !== 'ram-batch') this.seen.push(event);
    return event;
  }

  /** Reads up to the first event that matches. Throws if the stream ends before. */
  async until(matches: (event: StreamEvent) => boolean): Promise<StreamEvent> {
    for (;;) {
      const event = await this.next();
      if (event === undefined) throw new Error('the stream ended before the event that the script waits for');
      if (matches(event)) return event;
    }
  }

  /** Reads up to the next PING and returns its value. */
  async ping(): Promise<number> {
    const event = await this.until((e) => e.kind === 'command' && e.command.name === 'PING');
    if (event.kind !== 'command' || event.command.name !== 'PING') throw new Error('unreachable');
    return event.command.value;
  }

  /** Resolves when the event loop has turned often enough for whatever was under way in this process to arrive. */
  async idle(): Promise<void> {
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  }

  async say(message: ReturnPathMessage): Promise<void> {
    const writer = new Writer();
    encodeReturnPathMessage(writer, message);
    await this.channel.write(writer.bytes());
  }
}
