# Tells Kiln, as one line of JSON behind a record separator (RFC 7464), what became of each resource and where it stands.
require 'rubygems'
require 'json'
require 'puppet'
require 'puppet/reports'

# They are the tool's, not those of programs that it starts.
if File.directory?('/run/kiln/tool')
  Gem.paths
  ENV.delete('GEM_HOME')
  ENV.delete('GEM_PATH')
end

module Kiln
  LONGEST = 2000
  # What Puppet has said.
  SAID = []

  def self.say(record)
    $stdout.write("\x1e#{JSON.generate(record.compact)}\n")
    $stdout.flush
  end

  def self.text(words)
    words.to_s.encode('UTF-8', invalid: :replace, undef: :replace)[0, LONGEST]
  end

  def self.state(status)
    return 'failed' if status.failed || status.failed_to_restart
    return 'skipped' if status.skipped
    # A `notify` says something at every run and changes nothing.
    status.changed && status.resource_type != 'Notify' ? 'changed' : 'same'
  end

  # What is wrong with no resource: the catalogue did not come to be.
  def self.explain(logs)
    wrong = logs.select { |log| log.level == :err && log.source != 'Facter' }
    wrong.each do |log|
      place = log.message.match(/\(file: (?<file>[^,)]+), line: (?<line>\d+)/) || {}
      file, line = [log.file || place[:file], log.line || place[:line]]
      say(event: 'result', state: 'failed', what: 'the manifest', file: file, line: line&.to_i, message: text(log.message))
    end
  end

  def self.reported
    @reported = true
  end

  def self.reported?
    @reported
  end

  def self.tell(status, state, logs)
    own = logs.select { |log| log.source.start_with?("/#{status.containment_path.join('/')}") || log.source.include?(status.resource) }
    said = status.events.map(&:message) + own.select { |log| log.level == :err }.map(&:message)
    say(event: 'result', state: state, what: text(status.resource), file: status.file, line: status.line,
        message: text(said.uniq.join("\n")))
  end
end

Puppet::Reports.register_report(:kiln) do
  def process
    Kiln.reported
    resource_statuses.each_value do |status|
      state = Kiln.state(status)
      Kiln.tell(status, state, logs) unless state == 'same' && status.file.nil?
    end
    Kiln.explain(logs) if resource_statuses.any? && resource_statuses.values.none?(&:failed)
  end
end

Puppet::Util::Log.newdesttype :kiln do
  match 'kiln'
  def handle(log)
    Kiln::SAID << log
  end
end
Puppet::Util::Log.newdestination('kiln')
at_exit { Kiln.explain(Kiln::SAID) unless Kiln.reported? }
