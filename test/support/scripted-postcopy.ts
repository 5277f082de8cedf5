/** The destination of a postcopy by script: keeps the pages, and says on the return path only what the script wants. */
import assert from 'node:assert/strict';
import { clearBit, newBitmap, setBit, testBit, Writer } from '../../src/base/index.ts';
import { PING_ARRIVED, PING_CONNECTED } from '../../src/migration/return-path.ts';
import type { Channel } from '../../src/transport/index.ts';
import {
  bitmapToWire,
  type Command,
  encodeReturnPathMessage,
  RamDecoder,
  type RamSink,
  type ReturnPathMessage,
  type StreamEvent,
  StreamInput,
  StreamParser,
  type StreamRamBlock,
} from '../../src/wire/index.ts';
import { nextEvent } from './scripted-destination.ts';

const PAGE = 4096;
/** By any destination that reads; all other answers are the script's. */
const ANSWERED: ReadonlySet<number> = new Set([PING_ARRIVED, PING_CONNECTED]);
/** The first of a source. */
const PING_SETUP = 1;

/** Memory of all blocks, which pages have come since they were dropped, and in which order. */
export class PageLog implements RamSink {
  blocks: readonly StreamRamBlock[] = [];
  memory: Buffer[] = [];
  received: Uint32Array[] = [];
  /** `block/page` of every record since the last discard. */
  readonly order: string[] = [];

  begin(blocks: readonly StreamRamBlock[]): void {
    this.blocks = blocks;
    this.memory = blocks.map(({ usedLength }) => Buffer.alloc(usedLength));
    this.received = blocks.map(({ usedLength }) => newBitmap(usedLength / PAGE).fill(0xffff_ffff));
  }

  page(block: number, offset: number, from: Buffer, at: number): void {
    this.#note(block, offset);
    from.copy(this.memory[block]!, offset, at, at + PAGE);
  }

  zero(block: number, offset: number): void {
    this.#note(block, offset);
    this.memory[block]!.fill(0, offset, offset + PAGE);
  }

  read(): void {}

  discard(command: Command): void {
    assert(command.name === 'POSTCOPY_RAM_DISCARD');
    const block = this.blocks.findIndex(({ idstr }) => idstr === command.block);
    for (const { start, length } of command.ranges) {
      this.memory[block]!.fill(0xee, start, start + length);
      for (let at = start; at < start + length; at += PAGE) clearBit(this.received[block]!, at / PAGE);
    }
    this.order.length = 0;
  }

  has(block: number, page: number): boolean {
    return testBit(this.received[block]!, page);
  }

  get missing(): number {
    return this.blocks.reduce((sum, { usedLength }, block) => {
      let count = 0;
      for (let page = 0; page < usedLength / PAGE; page++) if (!this.has(block, page)) count++;
      return sum + count;
    }, 0);
  }

  #note(block: number, offset: number): void {
    setBit(this.received[block]!, offset / PAGE);
    this.order.push(`${block}/${offset / PAGE}`);
  }
}

export class ScriptedPostcopy {
  readonly pages = new PageLog();
  /** Names of commands, kinds of sections, in order; PING with its value. */
  readonly seen: string[] = [];
  channel: Channel;
  #input: StreamInput;
  readonly #parser: StreamParser;
  #said: Promise<void> = Promise.resolve();
  readonly #greets: boolean;

  /** `greets`: answers the first PING, as any destination that reads; all other answers are the script's. */
  constructor(channel: Channel, { greets = true } = {}) {
    this.channel = channel;
    this.#greets = greets;
    this.#input = new StreamInput(channel.label);
    this.#parser = new StreamParser(this.#input.reader);
  }

  /** Goes on over another connection. */
  resume(channel: Channel): void {
    this.channel = channel;
    this.#input = new StreamInput(channel.label);
    this.#parser.resume(this.#input.reader);
  }

  /** Reads up to the first event that matches. Throws if the stream ends before. */
  async until(matches: (event: StreamEvent) => boolean): Promise<StreamEvent> {
    for (;;) {
      const event = await this.#next();
      if (event?.kind === 'command' && event.command.name === 'PING' && ANSWERED.has(event.command.value))
        await this.say({ type: 'PONG', value: event.command.value });
      if (event === undefined)
        throw new Error(`the stream ended before the event that the script waits for: ${this.seen}`);
      if (matches(event)) return event;
    }
  }

  untilCommand(name: Command['name']): Promise<StreamEvent> {
    return this.until((event) => event.kind === 'command' && event.command.name === name);
  }

  untilPing(value: number): Promise<StreamEvent> {
    return this.until(
      (event) => event.kind === 'command' && event.command.name === 'PING' && event.command.value === value,
    );
  }

  async say(...messages: readonly ReturnPathMessage[]): Promise<void> {
    const writer = new Writer();
    for (const message of messages) encodeReturnPathMessage(writer, message);
    await this.channel.write(Buffer.from(writer.bytes()));
  }

  /** What it has of every block, as RECV_BITMAP messages. */
  bitmaps(): ReturnPathMessage[] {
    return this.pages.blocks.map(({ idstr, usedLength }, index) => ({
      type: 'RECV_BITMAP',
      block: idstr,
      bitmap: bitmapToWire(this.pages.received[index]!, usedLength / PAGE),
    }));
  }

  async #next(): Promise<StreamEvent | undefined> {
    await this.#said;
    const event = await nextEvent(this.#parser, this.#input, this.channel);
    if (event !== undefined) this.#take(event);
    return event;
  }

  #take(event: StreamEvent): void {
    if (event.kind === 'ram-blocks') {
      this.pages.begin(event.blocks);
      this.#parser.setRamSink(this.pages);
    } else if (event.kind === 'command') {
      const { command } = event;
      if (command.name === 'POSTCOPY_RAM_DISCARD') this.pages.discard(command);
      this.seen.push(command.name === 'PING' ? `PING ${command.value}` : command.name);
      if (this.#greets && command.name === 'PING' && command.value === PING_SETUP)
        this.#said = this.say({ type: 'PONG', value: PING_SETUP });
    } else if (event.kind === 'section-begin') {
      this.seen.push(`${event.section.idstr} ${event.section.kind}`);
    } else if (event.kind === 'device' || event.kind === 'eof') {
      this.seen.push(event.kind);
    }
  }
}

/** Reads page records of a preempt channel into `pages` until it ends. */
export async function readUrgent(channel: Channel, pages: PageLog): Promise<void> {
  const input = new StreamInput(channel.label);
  const decoder = new RamDecoder(PAGE, pages.blocks, pages);
  for (;;) {
    decoder.decode(input.reader, Number.POSITIVE_INFINITY);
    input.release();
    const chunk = await channel.read();
    if (chunk === null) return;
    input.add(chunk);
  }
}
