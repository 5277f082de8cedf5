/** The least QMP client: bytes out, messages in, so that tests decide what is on the wire. */
import { connect, type Socket } from 'node:net';

const DEADLINE_MS = 10_000;

export type Message = Readonly<Record<string, unknown>>;

export class RawClient {
  readonly socket: Socket;
  #text = '';
  readonly #messages: Message[] = [];
  #wake: () => void = () => {};

  constructor(path: string) {
    this.socket = connect({ path, allowHalfOpen: true });
    this.socket.on('error', () => {});
    this.socket.on('data', (bytes: Buffer) => {
      this.#text += bytes.toString();
      const lines = this.#text.split('\r\n');
      this.#text = lines.pop() ?? '';
      this.#messages.push(...lines.map((line) => JSON.parse(line) as Message));
      this.#wake();
    });
    this.socket.on('end', () => this.socket.end());
    this.socket.on('close', () => this.#wake());
  }

  /** Connected and past the negotiation. */
  static async negotiated(path: string): Promise<RawClient> {
    const client = new RawClient(path);
    await client.next();
    client.send({ execute: 'qmp_capabilities' });
    await client.next();
    return client;
  }

  send(message: unknown): void {
    this.write(`${JSON.stringify(message)}\n`);
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** The next message, or undefined if the connection ended without one. */
  async next(): Promise<Message | undefined> {
    const deadline = setTimeout(() => this.socket.destroy(new Error('no message within the deadline')), DEADLINE_MS);
    while (this.#messages.length === 0 && !this.socket.closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    clearTimeout(deadline);
    return this.#messages.shift();
  }

  /** Reply to one command. */
  async ask(execute: string, args?: unknown): Promise<Message | undefined> {
    this.send({ execute, ...(args === undefined ? {} : { arguments: args }) });
    return this.next();
  }
}
