/** Opening the parallel channels of capability multifd. */
import { announceChannel, CopyChannels, type PageChannels, SendChannels } from '../../dataplane/index.ts';
import type { SharedRam } from '../../machine/index.ts';
import { closeLine, type Line } from '../../native/index.ts';
import type { CompatProfile, SettingsView } from '../../settings/index.ts';
import type { Connection } from '../../transport/index.ts';
import { unlessAborted } from '../deadline.ts';
import { pageCompression } from '../page-compression.ts';
import { besideState } from './beside.ts';
import { type Dial, dialAll } from './dial-all.ts';
import type { SourceRun } from './run.ts';

/**
 * Where channels carry no packets: both ends are in this process, one is a file, and threads copy pages to the destination's RAM. Resolves once the
 * destination has read the block list, rejects when it can no more.
 */
export type CopyTo = () => Promise<SharedRam>;

/** How there can be more channels than one. */
export type MoreChannels = { readonly dial: Dial } | { readonly copyTo: CopyTo };

/** Who looks for zero pages, and how they are told. */
export type ZeroPages = 'none' | 'legacy' | 'multifd';

/**
 * The parameter, except that a destination of an old machine type is never sent zero pages in packets: before 9.0 they are lost there without
 * a word (qemu-wire fact 14).
 */
export function zeroPagesOf(settings: SettingsView, profile: CompatProfile): ZeroPages {
  const asked = settings.parameter('zero-page-detection');
  return asked === 'multifd' ? profile.zeroPageDetection : asked;
}

/**
 * Connects all channels, which say at once what they are, and starts their threads.
 * Throws TransportError, ChannelFault, MIGRATION_UNSUPPORTED; nothing is left open then.
 */
export async function openChannels(run: SourceRun, dial: Dial, failed: (error: Error) => void): Promise<SendChannels> {
  const { machine, settings, profile, signal } = run;
  const state = besideState(run);
  const compression = pageCompression(settings);
  const lines = await dialChannels(dial, settings.parameter('multifd-channels'), machine.uuid, signal);
  return await SendChannels.start({
    lines,
    ram: machine.sharedRam(),
    compression,
    level: compression === 'zstd' ? settings.parameter('multifd-zstd-level') : settings.parameter('multifd-zlib-level'),
    findZeroPages: zeroPagesOf(settings, profile) === 'multifd',
    ...(state === undefined ? {} : { state }),
    failed,
  });
}

/** As many threads that copy pages. Throws what `copyTo` throws, NATIVE_UNAVAILABLE. */
export async function openCopies(
  { machine, settings, signal }: SourceRun,
  copyTo: CopyTo,
  failed: (error: Error) => void,
): Promise<PageChannels> {
  const to = await unlessAborted(copyTo(), signal);
  return await CopyChannels.start({
    count: settings.parameter('multifd-channels'),
    from: machine.sharedRam(),
    to,
    failed,
  });
}

async function dialChannels(dial: Dial, count: number, uuid: Uint8Array | undefined, signal: AbortSignal) {
  return await dialAll({
    dial,
    roles: Array.from({ length: count }, (_, channel) => `multifd ${channel}`),
    signal,
    compare: 'are multifd and multifd-channels',
    take: (connection, channel) => {
      const line = lineOf(connection);
      announceChannel(line, channel, uuid);
      return line;
    },
    drop: closeLine,
  });
}

function lineOf(connection: Connection): Line {
  try {
    return connection.line();
  } catch (thrown) {
    connection.destroy();
    throw thrown;
  }
}
