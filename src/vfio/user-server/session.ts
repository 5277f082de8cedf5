/**
 * One client of a server, from its VERSION to the end of its connection. Commands are served one after the other; each is decoded, checked
 * against the state of the device (rules.ts), done, and answered. What does not fit is EINVAL and changes nothing.
 */
import { asError, unreachable } from '../../base/index.ts';
import type { Channel } from '../../transport/index.ts';
import { vfioUser } from '../../wire/index.ts';
import { COMMAND_BUS_MASTER, ConfigAt } from '../config-space.ts';
import { ERRNO } from '../errors.ts';
import { refuse, vfioUserError } from '../user-link/errors.ts';
import { Link } from '../user-link/link.ts';
import { ClientMemory } from './client-memory.ts';
import * as commands from './device-commands.ts';
import { mapDma, unmapDma } from './dma-commands.ts';
import type { ServerEvent } from './events.ts';
import { serveFeature } from './features.ts';
import { isClientCommand, isServedIn } from './rules.ts';
import type { OfferedDevice, ServedDevice } from './served-device.ts';

type Command = vfioUser.CommandName;
type Request<C extends Command> = vfioUser.Request<C>;
type Reply<C extends Command> = vfioUser.Reply<C>;

const REPLY_BYTES_MAX = commands.SERVER_DATA_BYTES_MAX + vfioUser.MESSAGE_SLACK_BYTES;

/** DMA messages under way to a client that takes several at a time; others are asked one after the other, as libvfio-user asks. */
const DMA_AT_ONCE = 16;

export interface SessionTimeouts {
  /** Until the client has said its VERSION, ms: it keeps others waiting. */
  readonly versionMs: number;
  /** For its answer to a DMA command, ms. */
  readonly dmaMs: number;
}

export const SESSION_TIMEOUTS: SessionTimeouts = { versionMs: 10_000, dmaMs: 30_000 };

export interface SessionOptions {
  readonly channel: Channel;
  readonly served: ServedDevice;
  readonly timeouts: SessionTimeouts;
  readonly tell: (event: ServerEvent) => void;
  /** The device reaches guest memory whether its guest has allowed that or not. */
  readonly ignoresBusMaster: boolean;
}

export class Session {
  readonly link: Link;
  readonly #served: ServedDevice;
  readonly #timeouts: SessionTimeouts;
  readonly #tell: (event: ServerEvent) => void;
  readonly #ignoresBusMaster: boolean;
  readonly #versionTimer: NodeJS.Timeout;
  /** Once the client has said its version. */
  #memory: ClientMemory | undefined;
  /** Largest data of a message that both ends take, bytes. */
  #dataBytesMax = 0;
  /** The device has the client's memory. */
  #attached = false;

  constructor({ channel, served, timeouts, tell, ignoresBusMaster }: SessionOptions) {
    this.#served = served;
    this.#timeouts = timeouts;
    this.#tell = tell;
    this.#ignoresBusMaster = ignoresBusMaster;
    this.link = new Link({
      channel,
      dataBytesMax: commands.SERVER_DATA_BYTES_MAX,
      serve: (message) => this.#serve(message),
    });
    const late = {
      code: 'VFIOUSER_SILENT',
      peer: channel.label,
      command: 'VERSION',
      timeoutMs: timeouts.versionMs,
    } as const;
    this.#versionTimer = setTimeout(() => this.link.close(vfioUserError(late)), timeouts.versionMs);
  }

  /** Settles when the connection is over and the device has let go of the client's memory. */
  async ended(): Promise<Error> {
    const reason = await this.link.ended;
    clearTimeout(this.#versionTimer);
    // What the device is doing for this client comes to its end before the next one is let in.
    await this.link.idle();
    this.#memory?.mappings.clear();
    if (this.#attached) await this.#served.device.attachDma(undefined);
    return reason;
  }

  async #serve(message: vfioUser.Message): Promise<Buffer> {
    const command = vfioUser.commandOfNumber(message.command);
    const memory = this.#memory;
    if (memory === undefined) return this.#first(command, message);
    if (command === undefined || !isClientCommand(command) || !isServedIn(this.#served.state, command)) {
      return vfioUser.encodeErrorReply(message.id, message.command, ERRNO.EINVAL);
    }
    const { device } = this.#served;
    const asked = <C extends Command>(of: C): Request<C> => vfioUser.decodeRequest(of, message);
    const reply = <C extends Command>(of: C, value: Reply<C>) => vfioUser.encodeReply(message.id, of, value);
    switch (command) {
      case 'VERSION':
        throw refuse('the server', command, ERRNO.EINVAL);
      case 'DMA_MAP':
        mapDma(memory, asked(command));
        return reply(command, {});
      case 'DMA_UNMAP':
        return reply(command, await unmapDma(memory, asked(command)));
      case 'DEVICE_GET_INFO':
        return reply(command, commands.deviceInfo(asked(command)));
      case 'DEVICE_GET_REGION_INFO':
        return reply(command, commands.regionInfo(device, asked(command)));
      case 'DEVICE_GET_REGION_IO_FDS':
        return reply(command, commands.regionIoFds(asked(command)));
      case 'DEVICE_GET_IRQ_INFO':
        return reply(command, commands.irqInfo(device, asked(command)));
      case 'DEVICE_SET_IRQS':
        commands.setIrqs(device, asked(command));
        return reply(command, {});
      case 'REGION_READ':
        return reply(command, await commands.readRegion(device, asked(command)));
      case 'REGION_WRITE': {
        const written = await commands.writeRegion(device, asked(command));
        if (written.region === vfioUser.PCI_REGION.CONFIG) await this.#followBusMaster(memory);
        return reply(command, written);
      }
      case 'REGION_WRITE_MULTI': {
        const written = await commands.writeRegionsMulti(device, asked(command));
        await this.#followBusMaster(memory);
        return reply(command, written);
      }
      case 'DEVICE_RESET':
        await this.#served.reset();
        await this.#followBusMaster(memory);
        return reply(command, {});
      case 'DEVICE_FEATURE': {
        const context = { served: this.#served, memory, replyBytesMax: REPLY_BYTES_MAX };
        return reply(command, await serveFeature(context, asked(command)));
      }
      case 'MIG_DATA_READ':
        return reply(command, await commands.readMigrationData(device, asked(command), this.#dataBytesMax));
      case 'MIG_DATA_WRITE':
        await commands.writeMigrationData(device, asked(command), this.#dataBytesMax);
        return reply(command, {});
      default:
        return unreachable(command);
    }
  }

  /** The first command has to be a VERSION that we can work with; after any other the connection is closed. */
  async #first(command: Command | undefined, message: vfioUser.Message): Promise<Buffer> {
    clearTimeout(this.#versionTimer);
    try {
      if (command !== 'VERSION') throw refuse('the server', 'VERSION', ERRNO.EINVAL);
      return vfioUser.encodeReply(message.id, command, await this.#negotiate(vfioUser.decodeRequest(command, message)));
    } catch (error) {
      this.link.closeAfterReply(asError(error));
      throw error;
    }
  }

  async #negotiate({ major, minor, capabilities = {} }: Request<'VERSION'>): Promise<Reply<'VERSION'>> {
    if (major !== vfioUser.PROTOCOL_MAJOR) throw refuse('the server', 'VERSION', ERRNO.EINVAL);
    const { maxDataXferSize } = { ...vfioUser.CAPABILITY_DEFAULTS, ...capabilities };
    this.#dataBytesMax = Math.min(maxDataXferSize, commands.SERVER_DATA_BYTES_MAX);
    const memory = new ClientMemory({
      link: this.link,
      dataBytesMax: this.#dataBytesMax,
      atOnce: capabilities.splitMessages === true ? DMA_AT_ONCE : 1,
      timeoutMs: this.#timeouts.dmaMs,
    });
    await this.#followBusMaster(memory);
    this.#memory = memory;
    this.#tell({ kind: 'client', version: `${major}.${minor}`, capabilities });
    return {
      major,
      minor: Math.min(minor, vfioUser.PROTOCOL_MINOR),
      capabilities: {
        maxDataXferSize: commands.SERVER_DATA_BYTES_MAX,
        writeMultiple: true,
        ...(capabilities.splitMessages === true ? { splitMessages: true } : {}),
      },
    };
  }

  /** A device reaches guest memory only while its guest allows it (bus mastering), if it has a configuration space to tell that by. */
  async #followBusMaster(memory: ClientMemory): Promise<void> {
    const { device } = this.#served;
    const allowed = this.#ignoresBusMaster || (await isBusMaster(device));
    if (allowed === this.#attached) return;
    await device.attachDma(allowed ? memory : undefined);
    this.#attached = allowed;
  }
}

async function isBusMaster(device: OfferedDevice): Promise<boolean> {
  if (!device.regions.some(({ index }) => index === vfioUser.PCI_REGION.CONFIG)) return true;
  const command = Buffer.alloc(2);
  await device.readRegion(vfioUser.PCI_REGION.CONFIG, ConfigAt.COMMAND, command);
  return (command.readUInt16LE(0) & COMMAND_BUS_MASTER) !== 0;
}
