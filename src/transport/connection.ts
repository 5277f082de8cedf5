import type { Socket } from 'node:net';
import { type Line, takeDescriptor } from '../native/index.ts';
import type { Channel } from './channel.ts';
import { SocketChannel } from './socket-channel.ts';
import type { SocketRing } from './socket-ring.ts';

/** Of each accepted connection as many bytes can be looked at: the initial packet of a multifd channel. */
export const FIRST_BYTES_MAX = 64;

/** Somebody is connected, and nobody reads yet. It becomes a channel, or a line, or is destroyed: one of them. */
export interface Connection {
  /** The peer's address. */
  readonly address: string;
  /**
   * The first bytes: at most FIRST_BYTES_MAX, or as soon as `enough` says so; or what has come when the peer ends or vanishes, or when this connection
   * is destroyed: nobody else ends the wait for a silent peer. A channel reads them again. Once, and only for accepted connections.
   */
  firstBytes(enough: (bytes: Buffer) => boolean): Promise<Buffer>;
  /** `role`: first word of the channel's label. */
  channel(role?: string): Channel;
  /** The connection without Node: what has not been looked at is still to be read there. Throws NATIVE_UNAVAILABLE, NATIVE_CALL. */
  line(): Line;
  destroy(): void;
}

export class SocketConnection implements Connection {
  readonly address: string;
  readonly #socket: Socket;
  readonly #ring: SocketRing;

  /** `socket`: made with the ring's options, and paused. */
  constructor(address: string, socket: Socket, ring: SocketRing) {
    this.address = address;
    this.#socket = socket;
    this.#ring = ring;
    // Whoever uses the connection finds out; until then nobody asks.
    socket.on('error', () => {});
  }

  firstBytes(enough: (bytes: Buffer) => boolean): Promise<Buffer> {
    const socket = this.#socket;
    return new Promise((resolve) => {
      const settle = (bytes: Buffer) => {
        for (const event of ['error', 'close', 'end']) socket.off(event, over);
        resolve(bytes);
      };
      const over = () => settle(this.#ring.firstBytes);
      for (const event of ['error', 'close', 'end']) socket.once(event, over);
      if (socket.destroyed) over();
      this.#ring.first = { enough, seen: settle };
      socket.resume();
    });
  }

  channel(role = 'main'): SocketChannel {
    return new SocketChannel(`${role} ${this.address}`, {
      input: this.#socket,
      output: this.#socket,
      ring: this.#ring,
    });
  }

  line(): Line {
    return { fd: takeDescriptor(this.#socket) };
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
