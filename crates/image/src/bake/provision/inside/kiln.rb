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

  def self.tell(status, state, logs)
    own = logs.select { |log| log.source.start_with?("/#{status.containment_path.join('/')}") || log.source.include?(status.resource) }
    said = status.events.map(&:message) + own.select { |log| log.level == :err }.map(&:message)
    say(event: 'result', state: state, what: text(status.resource), file: status.file, line: status.line,
        message: text(said.uniq.join("\n")))
  end
end

Puppet::Reports.register_report(:kiln) do
  def process
    resource_statuses.each_value do |status|
      state = Kiln.state(status)
      Kiln.tell(status, state, logs) unless state == 'same' && status.file.nil?
    end
    return unless resource_statuses.empty? || resource_statuses.values.none?(&:failed)
    # The catalogue did not come to be.
    logs.select { |log| log.level == :err }.each do |log|
      Kiln.say(event: 'result', state: 'failed', what: 'the manifest', file: log.file, line: log.line,
               message: Kiln.text(log.message))
    end
  end
end
