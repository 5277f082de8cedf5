/**
 * One connection between a client and a server, either end: asks the peer and serves what the peer asks. The two directions have nothing to
 * do with each other; a command of the peer may come while we wait for a reply of its.
 *
 *     reading   one loop for the life of the channel: replies go to who waits, commands into a queue
 *     serving   one command after the other, in the order in which they came; replies leave in that order
 *
 * The end, whoever causes it, is told once: `ended` settles, all that wait reject with its reason. A message leaves in one write, as servers
 * there are that do not put together what comes in pieces.
 */
import { asError, assert, FerryError, STARVED } from '../../base/index.ts';
import type { Channel } from '../../transport/index.ts';
import { StreamInput, vfioUser } from '../../wire/index.ts';
import { ERRNO } from '../errors.ts';
import { errnoOf, refuse, type VfioUserFault, vfioUserError } from './errors.ts';

type Command = vfioUser.CommandName;
type Message = vfioUser.Message;

/** Commands that may wait to be served, and bytes of them; beyond that nothing more is read for a while. */
const QUEUED_COMMANDS_MAX = 1024;
const QUEUED_BYTES_MAX = 16 * 1024 * 1024;
/** Largest number that is an errno. */
const ERRNO_MAX = 4095;

export interface LinkOptions {
  readonly channel: Channel;
  /** Largest count of a message with data that is taken, bytes. */
  readonly dataBytesMax: number;
  /**
   * Serves one command; resolves with the whole reply. The message is the callee's to keep. What it throws is answered with an error if it
   * has a number for that (errnoOf), and else ends the link.
   */
  readonly serve: (message: Message) => Promise<Buffer>;
}

interface Waiting {
  readonly command: Command;
  /** Called while the reply is in the reader's buffer. What it throws ends the link. */
  readonly take: (message: Message) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class Link {
  /** Settles, never rejects, when the link is over; with the reason. */
  readonly ended: Promise<Error>;
  readonly #channel: Channel;
  readonly #payloadBytesMax: number;
  readonly #serve: (message: Message) => Promise<Buffer>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #queue: Message[] = [];
  #queuedBytes = 0;
  #serving: Promise<void> | undefined;
  /** Lets the reader go on that has stopped because the queue is full. */
  #readOn: () => void = () => {};
  /** Why the next reply is the last thing that leaves. */
  #lastReply: Error | undefined;
  /** No more replies will come. */
  #peerDone = false;
  #id = 0;
  #reason: Error | undefined;
  #tellEnded: (reason: Error) => void = () => {};

  constructor({ channel, dataBytesMax, serve }: LinkOptions) {
    this.#channel = channel;
    this.#payloadBytesMax = dataBytesMax + vfioUser.MESSAGE_SLACK_BYTES;
    this.#serve = serve;
    this.ended = new Promise((resolve) => {
      this.#tellEnded = resolve;
    });
    void this.#read();
  }

  get peer(): string {
    return this.#channel.label;
  }

  /**
   * Asks the peer. `take` makes of the reply what is to be kept: its data are views that are valid only during the call; a fault that it
   * throws ends the link. Rejects with VFIOUSER_REFUSED, or with the reason for which the link is over; after `timeoutMs` it is.
   */
  request<C extends Command, T>(
    command: C,
    value: vfioUser.Request<C>,
    timeoutMs: number,
    take: (reply: vfioUser.Reply<C>) => T,
  ): Promise<T> {
    if (this.#peerDone) this.#closedByPeer(command);
    if (this.#reason !== undefined) return Promise.reject(this.#reason);
    this.#readOn();
    const id = this.#nextId();
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => this.#fail({ code: 'VFIOUSER_SILENT', command, timeoutMs }), timeoutMs);
      const takeReply = (message: Message) => resolve(take(vfioUser.decodeReply(command, message)));
      this.#waiting.set(id, { command, take: takeReply, reject, timer });
      this.#channel.write(vfioUser.encodeRequest(id, command, value)).catch((error) => this.close(asError(error)));
    });
  }

  /** The error of a reply to `command` that is none; for `take` to throw. */
  badReply(command: Command, expected: string | number, found: string | number): Error {
    const fault = { code: 'VFIOUSER_BAD_REPLY', peer: this.peer, command } as const;
    return vfioUserError({ ...fault, expected: String(expected), found: String(found) });
  }

  /** Settles, never rejects, when no command of the peer is being served. */
  async idle(): Promise<void> {
    await this.#serving;
  }

  /** Ends it when the reply to the command that is being served has left. */
  closeAfterReply(reason: Error): void {
    this.#lastReply = reason;
  }

  /** Ends it: whatever waits rejects with `reason`. The first reason counts. Never throws. */
  close(reason: Error): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#queue.length = 0;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(reason);
    }
    this.#waiting.clear();
    this.#readOn();
    this.#channel.destroy(reason);
    this.#tellEnded(reason);
  }

  #fail(fault: Without<VfioUserFault, 'peer'>): void {
    this.close(vfioUserError({ ...fault, peer: this.peer } as VfioUserFault));
  }

  #nextId(): number {
    assert(this.#waiting.size <= 0xffff, 'more commands under way than there are ids');
    do this.#id = (this.#id + 1) & 0xffff;
    while (this.#waiting.has(this.#id));
    return this.#id;
  }

  async #read(): Promise<void> {
    const input = new StreamInput(this.peer, { bytesMax: 2 * this.#payloadBytesMax });
    try {
      while (this.#reason === undefined) {
        const message = this.#next(input);
        if (message !== undefined) {
          if (message.type === 'reply') this.#takeReply(message);
          else if (this.#enqueue(message)) await this.#room();
          continue;
        }
        input.release();
        const chunk = this.#channel.tryRead() ?? (await this.#channel.read());
        if (chunk !== null) input.add(chunk);
        else if (input.reader.available > 0) input.finish();
        else return await this.#peerClosed();
      }
    } catch (error) {
      this.close(asError(error));
    }
  }

  #next(input: StreamInput): Message | undefined {
    try {
      return vfioUser.decodeMessage(input.reader, this.#payloadBytesMax);
    } catch (thrown) {
      if (thrown === STARVED) return undefined;
      throw thrown;
    }
  }

  #takeReply(message: Message): void {
    const waiting = this.#waiting.get(message.id);
    if (waiting === undefined || vfioUser.COMMANDS[waiting.command].number !== message.command) {
      this.#fail({ code: 'VFIOUSER_WRONG_REPLY', id: message.id, command: message.command });
      return;
    }
    this.#waiting.delete(message.id);
    clearTimeout(waiting.timer);
    if (message.error !== undefined) {
      waiting.reject(this.#refused(waiting.command, message.error));
      return;
    }
    try {
      waiting.take(message);
    } catch (thrown) {
      waiting.reject(asError(thrown));
      throw thrown;
    }
  }

  /** A number that is none is taken as EINVAL, as other clients do. */
  #refused(command: Command, error: number): Error {
    const errno = error === 0 || error > ERRNO_MAX ? ERRNO.EINVAL : error;
    return refuse(this.peer, command, errno);
  }

  /** True: the queue is full. */
  #enqueue(message: Message): boolean {
    const kept = vfioUser.keepMessage(message);
    this.#queue.push(kept);
    this.#queuedBytes += kept.payload.bytes.length;
    this.#serving ??= this.#serveAll();
    return this.#full;
  }

  get #full(): boolean {
    return this.#queue.length > QUEUED_COMMANDS_MAX || this.#queuedBytes > QUEUED_BYTES_MAX;
  }

  /** Waits for room in the queue; no longer if a reply is wanted, which stands behind the commands that are not read yet. */
  async #room(): Promise<void> {
    if (this.#waiting.size > 0) {
      this.#fail({ code: 'VFIOUSER_FLOODED', commands: this.#queue.length });
      return;
    }
    await new Promise<void>((resolve) => {
      this.#readOn = resolve;
    });
  }

  async #serveAll(): Promise<void> {
    try {
      for (let message = this.#queue.shift(); message !== undefined; message = this.#queue.shift()) {
        this.#queuedBytes -= message.payload.bytes.length;
        if (!this.#full) this.#readOn();
        const reply = await this.#replyTo(message);
        if (this.#reason !== undefined) return;
        if (!message.noReply) await this.#channel.write(reply);
        if (this.#lastReply !== undefined) this.close(this.#lastReply);
      }
    } catch (error) {
      this.close(asError(error));
    } finally {
      this.#serving = undefined;
    }
  }

  async #replyTo(message: Message): Promise<Buffer> {
    try {
      return await this.#serve(message);
    } catch (thrown) {
      const errno = errnoOf(thrown);
      if (errno === undefined) throw thrown;
      return vfioUser.encodeErrorReply(message.id, message.command, errno);
    }
  }

  /** What it has asked before it closed is still done, as far as that needs no answer of its. */
  async #peerClosed(): Promise<void> {
    this.#peerDone = true;
    const [waiting] = this.#waiting.values();
    if (waiting === undefined) await this.#serving;
    this.#closedByPeer(waiting?.command);
  }

  #closedByPeer(waiting: Command | undefined): void {
    this.#fail({ code: 'VFIOUSER_CLOSED', waiting });
  }
}

type Without<F, K extends PropertyKey> = F extends unknown ? Omit<F, K> : never;

/** What a peer said no with; undefined for any other error. */
export function refusedErrno(thrown: unknown): number | undefined {
  if (!(thrown instanceof FerryError) || thrown.code !== 'VFIOUSER_REFUSED') return undefined;
  return (thrown.fault as VfioUserFault & { readonly code: 'VFIOUSER_REFUSED' }).errno;
}
