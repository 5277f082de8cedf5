import { nowMs } from '../../base/index.ts';
import type { DestinationMachine } from '../../machine/index.ts';
import { type SettingsView, WAITS } from '../../settings/index.ts';
import type { Channel, Chunk } from '../../transport/index.ts';
import { type RamSink, type StreamEvent, StreamInput, StreamParser } from '../../wire/index.ts';
import { overdue, within } from '../deadline.ts';
import { MigrationError } from '../errors.ts';
import { DirectReceiver } from './direct-receiver.ts';

/** A source that says nothing for so long is waited for: query-migrate shows it, ms. */
const NOTICEABLE_MS = 1_000;

/** The main stream as it arrives, element by element; pages go straight to the sink. */
export class IncomingStream {
  #channel: Channel;
  /** The source listens on the return path, and after EOF it may wait for a word without a word. */
  sourceListens = false;
  readonly settings: SettingsView;
  readonly #pageSize: number;
  #input: StreamInput;
  /** When bytes came last. */
  #heardMs = nowMs();
  readonly #parser: StreamParser;
  #direct: DirectReceiver | undefined;
  /** EOF was the last event. */
  #ended = false;
  #over = false;
  /** A read under way: one that outlasted a silence is waited for again. */
  #reading: Promise<Chunk | null> | undefined;
  /** Of channels before this one, bytes. */
  #readBefore = 0;
  #interruption: Error | undefined;
  #interrupt: (error: Error) => void = () => {};

  constructor(channel: Channel, machine: DestinationMachine, settings: SettingsView) {
    this.#channel = channel;
    this.settings = settings;
    this.#pageSize = machine.targetPageSize;
    this.#input = new StreamInput(channel.label);
    this.#parser = new StreamParser(this.#input.reader, {
      pageSize: this.#pageSize,
      measureDevice: (section, bytes) => machine.measureDevice(section, bytes),
      packages: 'whole',
    });
  }

  get channel(): Channel {
    return this.#channel;
  }

  /** What it waits for, if that takes a noticeable time. */
  get waitingFor(): string | undefined {
    if (nowMs() - this.#heardMs < NOTICEABLE_MS) return undefined;
    return this.#ended ? WAITS.description.what : WAITS.stream.what;
  }

  /** Of all channels there have been. */
  get bytesRead(): number {
    return this.#readBefore + this.#channel.counters.bytesRead;
  }

  /** The elements of a package, to be read beside this stream. `event.bytes` must stay. */
  packaged(event: StreamEvent & { readonly kind: 'package' }): StreamParser {
    return this.#parser.packaged(event);
  }

  /** Postcopy recovery: the stream goes on over another channel. */
  moveTo(channel: Channel): void {
    this.#readBefore = this.bytesRead;
    this.#channel = channel;
    this.#input = new StreamInput(channel.label);
    this.#parser.resume(this.#input.reader);
    this.#reading = undefined;
    this.#interruption = undefined;
    this.#direct = undefined;
    this.#ended = false;
    this.#over = false;
    this.#heardMs = nowMs();
  }

  /** After the event `ram-blocks`: where pages go. */
  setRamSink(sink: RamSink): void {
    this.#parser.setRamSink(sink);
    this.#direct = DirectReceiver.of(this.channel, sink, this.#parser, this.#input, this.#pageSize);
  }

  /** `next` waits for bytes no more and throws `error`; the channel stays open. */
  interrupt(error: Error): void {
    this.#interruption ??= error;
    this.#interrupt(error);
  }

  /** The next element; undefined at the end. The last one is the description, unless it is suppressed. Throws WireError, TransportError. */
  async next(): Promise<StreamEvent | undefined> {
    while (!this.#over) {
      if (this.#interruption !== undefined) throw this.#interruption;
      const event = this.#parser.next();
      if (event !== undefined) {
        this.#ended = event.kind === 'eof';
        this.#over = event.kind === 'description';
        return event;
      }
      if (this.#parser.finished) break;
      await this.#more();
    }
    return undefined;
  }

  /** Reads past what may still come, to the orderly end. Throws TransportError. */
  async drain(): Promise<void> {
    while ((await (this.#reading ?? this.channel.read())) !== null);
  }

  /** Gets more bytes, or knows that there are none. */
  async #more(): Promise<void> {
    const { channel } = this;
    const input = this.#input;
    input.release();
    const waiting = channel.tryRead();
    if (waiting === undefined && this.#direct?.receive() === true) {
      this.#heardMs = nowMs();
      return;
    }
    this.#direct?.chunkRead();
    const chunk = waiting ?? (await this.#read());
    if (chunk === 'silence') {
      // A description that has begun is not suppressed: the link has come to a stop in it.
      if (this.#ended && input.reader.available === 0) this.#over = true;
      else this.#parser.assumeSilent();
    } else if (chunk !== null) {
      input.add(chunk);
    } else if (this.#ended && this.sourceListens) {
      // Whoever listens for SHUT and leaves before the description is gone: its guest goes on there (qemu-wire fact 5).
      throw new MigrationError(
        { code: 'MIGRATION_PEER_GONE', phase: 'description' },
        `${channel.label}: the source closed the connection before the description, at offset ${input.reader.offset}`,
      );
    } else input.finish();
  }

  /** The next chunk; 'silence' if a source that may wait for us has said nothing for a while. */
  async #read(): Promise<Chunk | null | 'silence'> {
    if (this.#interruption !== undefined) throw this.#interruption;
    this.#reading ??= this.channel.read().finally(() => {
      this.#reading = undefined;
    });
    const reading = new Promise<Chunk | null>((resolve, reject) => {
      this.#interrupt = reject;
      this.#reading?.then(resolve, reject);
    });
    const chunk = await this.#unlessSilent(reading);
    if (chunk !== 'silence') this.#heardMs = nowMs();
    return chunk;
  }

  /**
   * A source whose machine has suppress-vmdesc=on sends nothing after EOF and waits for SHUT, and the stream does not say so: a silence long enough
   * means that. Anywhere else a source that is silent for longer than it may be is given up.
   */
  async #unlessSilent(reading: Promise<Chunk | null>): Promise<Chunk | null | 'silence'> {
    const suppressed = this.sourceListens ? this.settings.parameter(WAITS.description.deadline) : 0;
    const described = !this.#ended || !this.sourceListens || this.#input.reader.available > 0;
    const silence = described ? this.settings.parameter(WAITS.stream.deadline) : 0;
    const leftMs = silence === 0 ? 0 : Math.max(silence - (nowMs() - this.#heardMs), 1);
    const deadlines = [suppressed, leftMs].filter((ms) => ms > 0);
    if (deadlines.length === 0) return await reading;
    return await within(reading, Math.min(...deadlines), WAITS.stream.what).catch((error: unknown) => {
      if (!(error instanceof MigrationError && error.code === 'MIGRATION_DEADLINE')) throw error;
      if (silence > 0 && nowMs() - this.#heardMs >= silence) throw overdue(WAITS.stream.what, silence);
      return 'silence' as const;
    });
  }
}
