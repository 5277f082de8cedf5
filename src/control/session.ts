/**
 * One client of the QMP server: greeting, negotiation, then commands one after another in the order they came, and events in
 * between. A client that goes away, talks nonsense or does not read harms nobody but itself.
 */
import type { Duplex } from 'node:stream';
import type { CommandContext } from './command.ts';
import { errorReply, refuse } from './errors.ts';
import { type Frame, JsonFramer, readJson, writeJson } from './framing.ts';
import { check, isRecord } from './schema.ts';
import { VERSION_INFO } from './version.ts';

/** Requests taken from a client before it must wait for replies. */
const REQUESTS_WAITING_MAX = 64;
/** Bytes kept for a client that does not read; beyond, it is cut off. Replies wait for their turn: it is events that pile up. */
const OUTPUT_BYTES_MAX = 1024 * 1024;
/** How long the reply under way and the end of the connection may take once it is to be closed, ms. */
const FAREWELL_MS = 1000;

export class Session {
  /** Resolves when the connection is gone. */
  readonly closed: Promise<void>;
  readonly #stream: Duplex;
  readonly #context: CommandContext;
  readonly #framer = new JsonFramer();
  readonly #frames: Frame[] = [];
  #negotiated = false;
  #working = false;
  /** No more requests are taken; when those that wait are answered, the connection ends. */
  #ending = false;

  constructor(stream: Duplex, context: CommandContext) {
    this.#stream = stream;
    this.#context = context;
    this.closed = new Promise((resolve) => stream.once('close', () => resolve()));
    stream.on('error', () => {}); // 'close' follows, and there is nobody to tell.
    stream.on('data', (bytes: Buffer) => this.#received(bytes));
    stream.on('end', () => this.#finish());
    this.#send({ QMP: { version: VERSION_INFO, capabilities: [] } });
  }

  /** `message` is a whole event; clients that have not negotiated yet do not get it. */
  event(message: object): void {
    if (!this.#negotiated || !this.#stream.writable) return;
    this.#send(message);
    if (this.#stream.writableLength > OUTPUT_BYTES_MAX) this.#stream.destroy();
  }

  /** Answers what is under way, drops what waits, and ends the connection. Never throws. */
  async close(): Promise<void> {
    this.#frames.length = 0;
    this.#finish();
    this.#limit();
    await this.closed;
  }

  #received(bytes: Buffer): void {
    if (this.#ending) return;
    this.#frames.push(...this.#framer.push(bytes));
    if (this.#frames.length > REQUESTS_WAITING_MAX) this.#stream.pause();
    void this.#work();
  }

  #finish(): void {
    this.#ending = true;
    void this.#work();
  }

  /** From now on the connection lives no longer than a farewell takes, whatever the client does. */
  #limit(): void {
    const timer = setTimeout(() => this.#stream.destroy(), FAREWELL_MS);
    void this.closed.then(() => clearTimeout(timer));
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (!this.#stream.destroyed) {
      const frame = this.#frames.shift();
      if (frame === undefined) break;
      const reply = await this.#answer(frame);
      if (this.#stream.destroyed) break;
      this.#send(reply);
      if (this.#stream.writableNeedDrain) await this.#drained();
    }
    this.#working = false;
    this.#stream.resume();
    if (this.#ending) this.#stream.end();
  }

  async #answer(frame: Frame): Promise<object> {
    let id: { id?: unknown } = {};
    try {
      const request = this.#read(frame);
      if (Object.hasOwn(request, 'id')) id = { id: request['id'] };
      return { return: await this.#execute(request), ...id };
    } catch (thrown) {
      return { ...id, error: errorReply(thrown) };
    }
  }

  #read(frame: Frame): Record<string, unknown> {
    switch (frame.kind) {
      case 'stray':
        throw refuse('GenericError', `JSON parse error: stray byte 0x${frame.byte.toString(16).padStart(2, '0')}`);
      case 'overflow':
        this.#ending = true;
        this.#limit();
        throw refuse('GenericError', `JSON parse error: the message is ${frame.reason}; the connection ends here`);
      case 'text': {
        const read = readJson(frame.text);
        if ('problem' in read) throw refuse('GenericError', `JSON parse error: ${read.problem}`);
        if (!isRecord(read.value)) throw refuse('GenericError', 'A request must be a JSON object');
        return read.value;
      }
    }
  }

  #execute(request: Record<string, unknown>): unknown {
    const { execute: name, arguments: args = {} } = request;
    const extra = Object.keys(request).find((member) => !['execute', 'arguments', 'id'].includes(member));
    if (extra !== undefined) throw refuse('GenericError', `Request member '${extra}' is unexpected`);
    if (name === undefined) throw refuse('GenericError', "Request member 'execute' is missing");
    if (typeof name !== 'string') throw refuse('GenericError', "Request member 'execute' must be a string");
    if (!isRecord(args)) throw refuse('GenericError', "Request member 'arguments' must be an object");
    if (!this.#negotiated && name !== 'qmp_capabilities') {
      throw refuse('CommandNotFound', "No command before 'qmp_capabilities' has ended the negotiation");
    }
    const command = this.#context.commands.get(name);
    if (command === undefined) throw refuse('CommandNotFound', `There is no command '${name}'`);
    check(command.arguments, args);
    if (!this.#negotiated) {
      this.#negotiated = true;
      return {};
    }
    return command.run(this.#context, args);
  }

  #send(message: object): void {
    this.#stream.write(writeJson(message));
  }

  /** Until the client has read, or is gone. */
  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#stream.off('drain', done);
        this.#stream.off('close', done);
        resolve();
      };
      this.#stream.on('drain', done);
      this.#stream.on('close', done);
    });
  }
}
