import type { Socket } from 'node:net';
import { takeDescriptor } from '../native/index.ts';
import type { Channel } from './channel.ts';
import { channelFailure, closedHere } from './errors.ts';
import { SocketChannel } from './socket-channel.ts';
import type { SocketRing } from './socket-ring.ts';

/** Of each accepted connection as many bytes can be looked at: the initial packet of a multifd channel. */
export const FIRST_BYTES_MAX = 64;

/** A socket that is connected and that nobody reads yet. It becomes a channel, or gives its descriptor away, or is destroyed: one of them. */
export class Connection {
  /** The peer's address. */
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

  /**
   * The first bytes: at most FIRST_BYTES_MAX, or as soon as `enough` says so. Null if the peer ends before. A channel reads them again. Once, and only
   * for accepted connections. Waits as long as the peer is silent: `destroy` ends that. Throws TransportError.
   */
  firstBytes(enough: (bytes: Buffer) => boolean): Promise<Buffer | null> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const settle = () => {
        socket.off('error', onError);
        socket.off('close', onClose);
        socket.off('end', onEnd);
      };
      const onError = (error: Error) => {
        settle();
        reject(channelFailure(this.#position(), error));
      };
      const onClose = () => {
        settle();
        reject(closedHere(this.#position()));
      };
      const onEnd = () => {
        settle();
        resolve(null);
      };
      const seen = (bytes: Buffer) => {
        settle();
        resolve(bytes);
      };
      socket.once('error', onError);
      socket.once('close', onClose);
      socket.once('end', onEnd);
      this.#ring.first = { enough, seen };
      socket.resume();
    });
  }

  /** `role`: first word of the channel's label. */
  channel(role = 'main'): Channel {
    return new SocketChannel(`${role} ${this.address}`, {
      input: this.#socket,
      output: this.#socket,
      ring: this.#ring,
    });
  }

  /** The connection without Node: what has not been looked at is still to be read there. Throws NATIVE_UNAVAILABLE, NATIVE_CALL. */
  descriptor(): number {
    return takeDescriptor(this.#socket);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #position() {
    return { channel: this.address, bytesRead: this.#ring.bytesRead, bytesWritten: 0 };
  }
}
