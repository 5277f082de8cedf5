import { nowMs } from '../../base/index.ts';
import { WAITS } from '../../settings/index.ts';
import { inTime } from '../deadline.ts';
import { PING_HELLO } from '../return-path.ts';
import { DirtyPages } from './dirty-pages.ts';
import { MainPages } from './main-pages.ts';
import { type MoreChannels, openChannels, openCopies, zeroPagesOf } from './multifd.ts';
import { MultifdPages } from './multifd-pages.ts';
import type { PageRoute } from './page-route.ts';
import { RamSaver } from './ram-save.ts';
import type { SourceRun } from './run.ts';
import { XbzrleCache } from './xbzrle-cache.ts';

/** The first PING to a destination that need not know who we are; QEMU's has this value too. */
const PING_SETUP = 1;

/**
 * Header, parallel channels, START sections: from here on pages can be sent. `more`: with multifd. `secured`: the destination may refuse us until it
 * has answered: a client of TLS 1.3 shakes hands before it knows.
 */
export async function setUp(
  run: SourceRun,
  more: MoreChannels | undefined,
  secured: boolean,
  failed: (error: Error) => void,
): Promise<RamSaver> {
  const { machine, settings, statistics, links, stream, acks } = run;
  const ping = machine.iterables.length > 0 ? PING_HELLO : PING_SETUP;
  const answered = links.returnPath?.pong(ping);
  answered?.catch(() => {});
  const ignoreShared = settings.capability('x-ignore-shared');
  await stream.begin({
    ignoreShared,
    uuid: settings.capability('validate-uuid') ? machine.uuid : undefined,
    ...(answered === undefined ? {} : { ping }),
    postcopy: settings.capability('postcopy-ram'),
  });
  if (more !== undefined && 'dial' in more) {
    // A QEMU up to 7.2 takes the first who comes for main.
    await links.output.drained();
    run.waitsFor(WAITS.connection.what);
    links.addChannels(await openChannels(run, more.dial, failed));
    run.waitsFor(undefined);
    if (answered !== undefined) await run.wait(answered, 'answer');
  } else if (secured && answered !== undefined) {
    await links.output.drained();
    await run.wait(answered, 'answer');
  } else if (answered !== undefined) {
    // Pages go meanwhile. A destination that waits for channels that we do not have never reads (qemu-wire 5.1).
    inTime(answered, 'answer', settings).catch(failed);
  }
  await machine.dirtyLog?.start();
  const blocks = machine.ram.filter((block) => !(ignoreShared && block.shared));
  const dirty = new DirtyPages(blocks, machine.targetPageSize);
  const sent = more !== undefined && 'copyTo' in more ? undefined : routeOf(run, dirty);
  await stream.start({
    ignoreShared,
    postcopy: settings.capability('postcopy-ram'),
    switchoverAck: acks !== undefined,
  });
  await links.output.flush();
  if (more !== undefined && 'copyTo' in more) links.addChannels(await openCopies(run, more.copyTo, failed));
  const ram = new RamSaver(machine, dirty, sent ?? copied(run, dirty), statistics);
  run.check();
  statistics.setupMs = nowMs() - statistics.startMs;
  statistics.syncCount = 1;
  run.move('active');
  run.passed();
  return ram;
}

function routeOf({ machine, settings, profile, statistics, links, stream }: SourceRun, dirty: DirtyPages): PageRoute {
  const { output, channels } = links;
  const zeroPages = zeroPagesOf(settings, profile);
  if (channels !== undefined) {
    const discipline = profile.multifdFlushAfterEachSection ? 'section' : 'round';
    const pages = new MultifdPages({ channels, discipline, zeroPages, dirty, output, statistics });
    stream.join(pages);
    return pages;
  }
  const xbzrle = settings.capability('xbzrle')
    ? new XbzrleCache(settings.parameter('xbzrle-cache-size'), machine.targetPageSize)
    : undefined;
  return new MainPages({ dirty, output, statistics, findZeroPages: zeroPages !== 'none', xbzrle });
}

/** By threads, to where pages belong at the destination. */
function copied({ statistics, links, stream }: SourceRun, dirty: DirtyPages): PageRoute {
  const { output } = links;
  const channels = links.channels!;
  const discipline = 'unseen round';
  const pages = new MultifdPages({ channels, discipline, zeroPages: 'multifd', dirty, output, statistics });
  stream.join(pages);
  return pages;
}
