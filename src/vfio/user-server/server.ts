/**
 * Offers a device at a unix socket to any vfio-user client, one after the other: while one is connected, others wait. The device outlives
 * its clients and keeps its state between them; a client that finds it in a state that it does not want resets it.
 */
import { asError } from '../../base/index.ts';
import { type Channel, type Listener, listen } from '../../transport/index.ts';
import type { ServerEvent } from './events.ts';
import { type OfferedDevice, ServedDevice } from './served-device.ts';
import { SESSION_TIMEOUTS, Session, type SessionOptions, type SessionTimeouts } from './session.ts';

export interface DeviceServerOptions {
  /** Where to listen. A socket that nobody listens at any more is replaced. */
  readonly socket: string;
  /** The server's from now on, but not closed by it. */
  readonly device: OfferedDevice;
  readonly tell?: (event: ServerEvent) => void;
  readonly timeouts?: Partial<SessionTimeouts>;
  /** The device reaches guest memory whether its guest has allowed that or not, as libvfio-user's samples do. Default false. */
  readonly ignoresBusMaster?: boolean;
}

export class DeviceServer {
  /** Settles, never rejects, when the server has ended; with the reason, if that was not `close`. */
  readonly ended: Promise<Error | undefined>;
  readonly #listener: Listener;
  readonly #options: Omit<SessionOptions, 'channel'>;
  readonly #closed: Promise<Error>;
  #tellClosed: (reason: Error) => void = () => {};
  #session: Session | undefined;
  #closing = false;

  /** Throws TransportError. */
  static async listen(options: DeviceServerOptions): Promise<DeviceServer> {
    const { socket, device, tell = () => {}, ignoresBusMaster = false } = options;
    const timeouts = { ...SESSION_TIMEOUTS, ...options.timeouts };
    const served = await ServedDevice.of(device, tell);
    const listener = await listen({ kind: 'unix', path: socket }, { role: 'vfio-user' });
    return new DeviceServer(listener, { served, tell, timeouts, ignoresBusMaster });
  }

  private constructor(listener: Listener, session: Omit<SessionOptions, 'channel'>) {
    this.#listener = listener;
    this.#options = session;
    this.#closed = new Promise((resolve) => {
      this.#tellClosed = resolve;
    });
    this.ended = this.#run();
  }

  /** Ends the client's connection and stops listening, without waiting for what the device is doing. Never throws. */
  async close(): Promise<void> {
    this.#closing = true;
    const reason = new Error('the server ends');
    this.#listener.close();
    this.#session?.link.close(reason);
    this.#tellClosed(reason);
    await this.ended;
  }

  async #run(): Promise<Error | undefined> {
    try {
      while (!this.#closing) await this.#serve(await this.#listener.accept());
      return undefined;
    } catch (error) {
      this.#listener.close();
      return this.#closing ? undefined : asError(error);
    }
  }

  async #serve(channel: Channel): Promise<void> {
    this.#session = new Session({ ...this.#options, channel });
    if (this.#closing) this.#session.link.close(new Error('the server ends'));
    const reason = await Promise.race([this.#session.ended(), this.#closed]);
    this.#session = undefined;
    this.#options.tell({ kind: 'gone', reason });
  }
}
